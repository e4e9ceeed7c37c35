"""The ledger's tables, as the newest migration creates them.

Amounts are integer micro-dollars, and times are integer milliseconds since 1970 UTC. `grants` and
`charges` are append-only, except that a charge is deleted if its commit was reported as failed, or
when a daily sum in `usage_days` replaces it.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    literal_column,
    text,
)

metadata = MetaData()


def _limits() -> list[Column[int]]:
    """Return columns for `RateLimits`, with NULL for no limit, and for the month's spending."""
    return [
        Column("requests_per_minute_max", BigInteger),
        Column("documents_per_minute_max", BigInteger),
        Column("concurrent_requests_max", BigInteger),
        Column("monthly_budget_micro_dollars", BigInteger),
        # Reserved or charged in the month yyyymm, which never moves back.
        Column("spent_month", Integer, nullable=False, server_default="0"),
        Column("spent_amount", BigInteger, nullable=False, server_default="0"),
    ]


tenants = Table(
    "tenants",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("name", String(128), nullable=False, unique=True),
    Column("available", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # Amounts below which the available credit triggers an event.
    Column("alerts_below", JSON, nullable=False, server_default="[]"),
    *_limits(),
    Column("weight", Integer, nullable=False, server_default="1"),
    CheckConstraint("available >= 0", name="tenants_available_not_negative"),
    CheckConstraint("weight >= 1", name="tenants_weight_positive"),
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
    Column("last_used_at", BigInteger),
    Column("replaces", String(32)),  # the rotated key that it replaces
    *_limits(),
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
    Column("kind", String(16), nullable=False, server_default="grant"),
    Column("request_id", String(128)),  # the refunded request
    Column("idempotency_key", String(128)),
    CheckConstraint(
        "amount > 0 OR (kind = 'correction' AND amount < 0)", name="grants_amount_fits_kind"
    ),
    CheckConstraint("kind IN ('grant', 'refund', 'correction')", name="grants_kind_known"),
    Index("grants_by_tenant", "tenant_id"),
    Index("grants_by_request", "request_id"),
    Index("grants_by_idempotency_key", "idempotency_key", unique=True),
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
    Column("documents", BigInteger, nullable=False),  # computed documents, charged or not
    Column("tokens", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("settled_at", BigInteger),
    Column(
        "key_capped", Boolean(create_constraint=False), nullable=False, server_default=text("false")
    ),
    Column("revision", String(260), nullable=False, server_default=""),  # empty: not known
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
        "reservations_pending_by_tenant",
        "tenant_id",
        "key_id",
        sqlite_where=text("state = 'pending'"),
        postgresql_where=text("state = 'pending'"),
    ),
    Index(
        "reservations_settled_by_time",
        "state",
        "settled_at",
        sqlite_where=text("state <> 'pending'"),
        postgresql_where=text("state <> 'pending'"),
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

# Literals, not parameters: otherwise the databases would not use the partial indexes.
PENDING: ColumnElement[str] = literal_column("'pending'")
IS_SETTLED: ColumnElement[bool] = literal_column("state <> 'pending'")
IS_COMMITTED: ColumnElement[bool] = literal_column("state = 'committed'")
IS_NOT_CHARGED: ColumnElement[bool] = literal_column("state IN ('voided', 'expired')")

charges = Table(
    "charges",
    metadata,
    # No foreign key to the reservation, because charges are kept longer.
    Column("request_id", String(128), primary_key=True),
    Column("tenant_id", String(32), ForeignKey("tenants.id"), nullable=False),
    Column("key_id", String(32), ForeignKey("api_keys.id"), nullable=False),
    Column("model", String(128), nullable=False),
    Column("documents", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("charged_at", BigInteger, nullable=False),
    Column("revision", String(260), nullable=False, server_default=""),  # empty: not known
    # See `serve_app.ledger.posting.sql.charged_row`. NULL: charged before v0008.
    Column("latency_ms", BigInteger),
    CheckConstraint("amount >= 0", name="charges_amount_not_negative"),
    Index("charges_by_tenant_and_time", "tenant_id", "charged_at"),
    Index("charges_by_time", "charged_at"),
    sqlite_with_rowid=False,
)

usage_days = Table(
    # Daily sums of old settled requests, whose rows are deleted.
    "usage_days",
    metadata,
    Column("tenant_id", String(32), ForeignKey("tenants.id"), primary_key=True),
    Column("day", BigInteger, primary_key=True),  # its first moment, UTC
    Column("key_id", String(32), ForeignKey("api_keys.id"), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("requests_not_charged", BigInteger, nullable=False),
    Column("documents", BigInteger, nullable=False),
    Column("documents_not_charged", BigInteger, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("charged", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

latency_days = Table(
    # The number of charges in a daily sum, by latency.
    "latency_days",
    metadata,
    Column("tenant_id", String(32), ForeignKey("tenants.id"), primary_key=True),
    Column("day", BigInteger, primary_key=True),
    Column("key_id", String(32), ForeignKey("api_keys.id"), primary_key=True),
    Column("model", String(128), primary_key=True),
    Column("latency_ms", BigInteger, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

idempotent_requests = Table(
    # Requests with an idempotency key of the last 24 hours. Digests, indices and numbers, no text.
    "idempotent_requests",
    metadata,
    Column("tenant_id", String(32), ForeignKey("tenants.id"), primary_key=True),
    Column("key_sha256", LargeBinary(32), primary_key=True),
    Column("request_sha256", LargeBinary(32), nullable=False),  # of the route and the body
    Column("request_id", String(128), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("outcome", LargeBinary),  # NULL: not charged
    Column(
        "replayed", Boolean(create_constraint=False), nullable=False, server_default=text("false")
    ),
    Index("idempotent_requests_by_time", "created_at"),
    sqlite_with_rowid=False,
)

shadow_comparisons = Table(
    # Requests scored by both revisions; see `serve_app.domain.canary`.
    "shadow_comparisons",
    metadata,
    Column("request_id", String(128), primary_key=True),
    Column("model", String(128), nullable=False),
    Column("live", String(260), nullable=False),
    Column("canary", String(260), nullable=False),
    Column("compared_at", BigInteger, nullable=False),
    Column("documents", BigInteger, nullable=False),
    Column("overlap_at_10", Double, nullable=False),
    Column("kendall_tau", Double, nullable=False),
    Column("live_run_s", Double, nullable=False),
    Column("canary_run_s", Double, nullable=False),
    Column("live_tokens", BigInteger, nullable=False),
    Column("canary_tokens", BigInteger, nullable=False),
    Index("shadow_comparisons_by_time", "compared_at"),
    sqlite_with_rowid=False,
)

rate_windows = Table(
    # Recent requests under limits per minute; see `rate_window`.
    "rate_windows",
    metadata,
    Column("subject", String(32), primary_key=True),  # a tenant's or a key's id
    Column("counts", JSON, nullable=False),
    sqlite_with_rowid=False,
)

audit_log = Table(
    # Append-only: triggers reject UPDATE and DELETE.
    "audit_log",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("who", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("tenant_id", String(32)),
    Column("subject", String(128), nullable=False),
    Column("details", JSON, nullable=False),
    Index("audit_log_by_tenant", "tenant_id", "id"),
)

outbox = Table(
    # Events not yet confirmed by the sink.
    "outbox",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("event_id", String(160), nullable=False, unique=True),
    Column("type", String(64), nullable=False),
    Column("tenant_id", String(32), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("data", JSON, nullable=False),
)
