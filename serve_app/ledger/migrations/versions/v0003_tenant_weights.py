"""Tenant weights: each tenant's share of busy scorers."""

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As part of the column, the constraint needs no copy of the table on SQLite. A copy would break
    # foreign keys.
    positive = sa.CheckConstraint("weight >= 1", name="tenants_weight_positive")
    op.add_column(
        "tenants", sa.Column("weight", sa.Integer, positive, nullable=False, server_default="1")
    )
