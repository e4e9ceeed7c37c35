"""Limits, refunds, key rotation, daily sums, the audit log and the event outbox."""

import sqlalchemy as sa
from alembic import op

revision = "v0002"
down_revision = "v0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
PENDING = sa.text("state = 'pending'")
SETTLED = sa.text("state <> 'pending'")


def upgrade() -> None:
    _change_accounts()
    _change_reservations()
    op.create_index("charges_by_time", "charges", ["charged_at"])
    _create_days()
    _create_acts()
    _create_outbox()


def _limits() -> list[sa.Column[int]]:
    return [
        sa.Column("requests_per_minute_max", sa.BigInteger),
        sa.Column("documents_per_minute_max", sa.BigInteger),
        sa.Column("requests_at_once_max", sa.BigInteger),
        sa.Column("month_amount_max", sa.BigInteger),
        sa.Column("spent_month", sa.Integer, nullable=False, server_default="0"),
        sa.Column("spent_amount", sa.BigInteger, nullable=False, server_default="0"),
    ]


def _change_accounts() -> None:
    op.add_column(
        "tenants", sa.Column("alerts_below", sa.JSON, nullable=False, server_default="[]")
    )
    op.add_column("api_keys", sa.Column("last_used_at", sa.BigInteger))
    op.add_column("api_keys", sa.Column("replaces", sa.String(32)))
    for table in ("tenants", "api_keys"):
        for column in _limits():
            op.add_column(table, column)
    with op.batch_alter_table("grants") as grants:
        grants.drop_constraint("grants_amount_positive", type_="check")
        grants.add_column(sa.Column("kind", sa.String(16), nullable=False, server_default="grant"))
        grants.add_column(sa.Column("request_id", sa.String(128)))
        grants.add_column(sa.Column("idempotency_key", sa.String(128)))
        grants.create_check_constraint(
            "grants_amount_fits_kind", "amount > 0 OR (kind = 'correction' AND amount < 0)"
        )
        grants.create_check_constraint(
            "grants_kind_known", "kind IN ('grant', 'refund', 'correction')"
        )
    op.create_index("grants_by_request", "grants", ["request_id"])
    op.create_index("grants_by_idempotency_key", "grants", ["idempotency_key"], unique=True)


def _change_reservations() -> None:
    op.add_column(
        "reservations",
        sa.Column("key_capped", sa.Boolean, nullable=False, server_default=sa.text("false")),
    )
    op.create_index(
        "reservations_pending_by_tenant",
        "reservations",
        ["tenant_id", "key_id"],
        sqlite_where=PENDING,
        postgresql_where=PENDING,
    )
    op.create_index(
        "reservations_settled_by_time",
        "reservations",
        ["state", "settled_at"],
        sqlite_where=SETTLED,
        postgresql_where=SETTLED,
    )


def _create_days() -> None:
    op.create_table(
        "usage_days",
        sa.Column("tenant_id", sa.String(32), sa.ForeignKey("tenants.id"), primary_key=True),
        sa.Column("day", sa.BigInteger, primary_key=True),
        sa.Column("key_id", sa.String(32), sa.ForeignKey("api_keys.id"), primary_key=True),
        sa.Column("model", sa.String(128), primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("requests_not_charged", sa.BigInteger, nullable=False),
        sa.Column("documents", sa.BigInteger, nullable=False),
        sa.Column("documents_not_charged", sa.BigInteger, nullable=False),
        sa.Column("tokens", sa.BigInteger, nullable=False),
        sa.Column("charged", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rate_windows",
        sa.Column("subject", sa.String(32), primary_key=True),
        sa.Column("counts", sa.JSON, nullable=False),
        sqlite_with_rowid=False,
    )


def _create_acts() -> None:
    op.create_table(
        "admin_acts",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("who", sa.String(128), nullable=False),
        sa.Column("act", sa.String(64), nullable=False),
        sa.Column("tenant_id", sa.String(32)),
        sa.Column("subject", sa.String(128), nullable=False),
        sa.Column("details", sa.JSON, nullable=False),
    )
    op.create_index("admin_acts_by_tenant", "admin_acts", ["tenant_id", "id"])
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER admin_acts_no_{verb.lower()} BEFORE {verb} ON admin_acts "
                "BEGIN SELECT RAISE(ABORT, 'admin_acts is only added to'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION admin_acts_only_added_to() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'admin_acts is only added to'; END $$"
    )
    op.execute(
        "CREATE TRIGGER admin_acts_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON admin_acts "
        "FOR EACH STATEMENT EXECUTE FUNCTION admin_acts_only_added_to()"
    )


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", BIG_ID, primary_key=True),
        sa.Column("event_id", sa.String(160), nullable=False, unique=True),
        sa.Column("type", sa.String(64), nullable=False),
        sa.Column("tenant_id", sa.String(32), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
