"""Tenant weights: each tenant's share of busy scorers."""

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The constraint is part of the column, so that SQLite need not copy the table. A copy would
    # break the foreign keys that refer to it.
    positive = sa.CheckConstraint("weight >= 1", name="tenants_weight_positive")
    op.add_column(
        "tenants", sa.Column("weight", sa.Integer, positive, nullable=False, server_default="1")
    )
