"""Rename two limits of tenants and keys.

Older entries of the audit log keep the earlier names.
"""

from alembic import op

revision = "v0005"
down_revision = "v0004"
branch_labels = None
depends_on = None

RENAMED = {
    "requests_at_once_max": "concurrent_requests_max",
    "month_amount_max": "monthly_budget_micro_dollars",
}


def upgrade() -> None:
    for table in ("tenants", "api_keys"):
        for old, new in RENAMED.items():
            op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
