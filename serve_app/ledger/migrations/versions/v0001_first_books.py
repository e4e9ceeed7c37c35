"""Tenants, keys, grants, reservations and charges."""

import sqlalchemy as sa
from alembic import op

revision = "v0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_accounts()
    _create_reservations()
    _create_charges()


def downgrade() -> None:
    for table in ("charges", "reservations", "grants", "api_keys", "tenants"):
        op.drop_table(table)


def _create_accounts() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(128), nullable=False, unique=True),
        sa.Column("available", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("available >= 0", name="tenants_available_not_negative"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("tenant_id", sa.String(32), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("label", sa.String(128), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("models", sa.JSON(none_as_null=True)),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.create_index("api_keys_by_tenant", "api_keys", ["tenant_id"])
    op.create_table(
        "grants",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("tenant_id", sa.String(32), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("reason", sa.String(512), nullable=False),
        sa.Column("granted_by", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("amount > 0", name="grants_amount_positive"),
    )
    op.create_index("grants_by_tenant", "grants", ["tenant_id"])


def _create_reservations() -> None:
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("tenant_id", sa.String(32), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("key_id", sa.String(32), sa.ForeignKey("api_keys.id"), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("charged", sa.BigInteger, nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("settled_at", sa.BigInteger),
        sa.CheckConstraint("amount >= 0", name="reservations_amount_not_negative"),
        sa.CheckConstraint(
            "charged >= 0 AND charged <= amount", name="reservations_charged_in_amount"
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'committed', 'voided', 'expired')",
            name="reservations_state_known",
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "reservations_pending_by_expiry",
        "reservations",
        ["expires_at"],
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        "reservations_not_charged_by_tenant",
        "reservations",
        ["tenant_id", "settled_at"],
        sqlite_where=sa.text("state IN ('voided', 'expired')"),
        postgresql_where=sa.text("state IN ('voided', 'expired')"),
    )


def _create_charges() -> None:
    op.create_table(
        "charges",
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("tenant_id", sa.String(32), sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("key_id", sa.String(32), sa.ForeignKey("api_keys.id"), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("amount", sa.BigInteger, nullable=False),
        sa.Column("charged_at", sa.BigInteger, nullable=False),
        sa.CheckConstraint("amount >= 0", name="charges_amount_not_negative"),
        sqlite_with_rowid=False,
    )
    op.create_index("charges_by_tenant_and_time", "charges", ["tenant_id", "charged_at"])
