"""The ledger's tables, as the newest migration leaves them.

Money is integer micro-dollars, time integer milliseconds since 1970 UTC. `grants` and `charges` are
what happened and are only added to (a charge leaves again only if its caller was told that it
failed); `tenants.available` is what that leaves to spend, kept beside them so that one conditional
UPDATE can check and reserve.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    text,
)

metadata = MetaData()

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("available", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("available >= 0", name="tenants_available_not_negative"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant_id", String(32), ForeignKey("tenants.id"), nullable=False),
    Column("label", String(128), nullable=False),
    Column("secret_sha256", LargeBinary(32), nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("models", JSON(none_as_null=True)),  # NULL: every model
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Index("api_keys_by_tenant", "tenant_id"),
)

grants = Table(
    "grants",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("tenant_id", String(32), ForeignKey("tenants.id"), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("reason", String(512), nullable=False),
    Column("granted_by", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    CheckConstraint("amount > 0", name="grants_amount_positive"),
    Index("grants_by_tenant", "tenant_id"),
)

reservations = Table(
    "reservations",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("tenant_id", String(32), ForeignKey("tenants.id"), nullable=False),
    Column("key_id", String(32), ForeignKey("api_keys.id"), nullable=False),
    Column("model", String(128), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
    Column("charged", BigInteger, nullable=False),
    Column("documents", BigInteger, nullable=False),  # computed, whether charged or not
    Column("tokens", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    CheckConstraint("amount >= 0", name="reservations_amount_not_negative"),
    CheckConstraint("charged >= 0 AND charged <= amount", name="reservations_charged_in_amount"),
    CheckConstraint(
        "state IN ('pending', 'committed', 'voided', 'expired')", name="reservations_state_known"
    ),
    Index(
        "reservations_pending_by_expiry",
        "expires_at",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "reservations_not_charged_by_tenant",
        "tenant_id",
        "settled_at",
        sqlite_where=text("state IN ('voided', 'expired')"),
        postgresql_where=text("state IN ('voided', 'expired')"),
    ),
    sqlite_with_rowid=False,
)

charges = Table(
    "charges",
    metadata,
    # No foreign key to the reservation: charges are kept longer.
    Column("request_id", String(128), primary_key=True),
    Column("tenant_id", String(32), ForeignKey("tenants.id"), nullable=False),
    Column("key_id", String(32), ForeignKey("api_keys.id"), nullable=False),
    Column("model", String(128), nullable=False),
    Column("documents", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("charged_at", BigInteger, nullable=False),
    CheckConstraint("amount >= 0", name="charges_amount_not_negative"),
    Index("charges_by_tenant_and_time", "tenant_id", "charged_at"),
    sqlite_with_rowid=False,
)
