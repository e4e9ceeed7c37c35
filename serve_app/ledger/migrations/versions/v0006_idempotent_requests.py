"""Idempotency keys of requests, with the outcomes that answer their repeats."""

import sqlalchemy as sa
from alembic import op

revision = "v0006"
down_revision = "v0005"
branch_labels = None
depends_on = None

TABLE = "idempotent_requests"


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("tenant_id", sa.String(32), sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("key_sha256", sa.LargeBinary(32), primary_key=True),
        sa.Column("request_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.LargeBinary),
        sa.Column(
            "replayed",
            sa.Boolean(create_constraint=False),
            nullable=False,
            server_default=sa.text("false"),
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("idempotent_requests_by_time", TABLE, ["created_at"])
