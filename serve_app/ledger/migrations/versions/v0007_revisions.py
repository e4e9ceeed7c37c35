"""The revision of each reservation and charge, and comparisons with canaries."""

import sqlalchemy as sa
from alembic import op

revision = "v0007"
down_revision = "v0006"
branch_labels = None
depends_on = None

TABLE = "shadow_comparisons"


def upgrade() -> None:
    for table in ("reservations", "charges"):
        op.add_column(
            table, sa.Column("revision", sa.String(260), nullable=False, server_default="")
        )
    op.create_table(
        TABLE,
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("live", sa.String(260), nullable=False),
        sa.Column("canary", sa.String(260), nullable=False),
        sa.Column("compared_at", sa.BigInteger, nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("overlap_at_10", sa.Double, nullable=False),
        sa.Column("kendall_tau", sa.Double, nullable=False),
        sa.Column("live_run_s", sa.Double, nullable=False),
        sa.Column("canary_run_s", sa.Double, nullable=False),
        sa.Column("live_tokens", sa.BigInteger, nullable=False),
        sa.Column("canary_tokens", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("shadow_comparisons_by_time", TABLE, ["compared_at"])
