"""The latency of each charge, and of the charges in a daily sum."""

import sqlalchemy as sa
from alembic import op

revision = "v0008"
down_revision = "v0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("charges", sa.Column("latency_ms", sa.BigInteger))
    op.create_table(
        "latency_days",
        sa.Column("tenant_id", sa.String(32), sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("day", sa.BigInteger, primary_key=True),
        sa.Column("key_id", sa.String(32), sa.ForeignKey("api_keys.id"), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("latency_ms", sa.BigInteger, primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
