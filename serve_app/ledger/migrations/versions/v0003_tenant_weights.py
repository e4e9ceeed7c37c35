"""What a tenant gets of the scorers beside others."""

import sqlalchemy as sa
from alembic import op

revision = "v0003"
down_revision = "v0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # With its constraint, as one column: to copy the table would break what refers to its rows.
    positive = sa.CheckConstraint("weight >= 1", name="tenants_weight_positive")
    op.add_column(
        "tenants", sa.Column("weight", sa.Integer, positive, nullable=False, server_default="1")
    )
