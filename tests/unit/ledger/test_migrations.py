"""Migrations keep the data of every earlier version, or change nothing."""

from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, MetaData, inspect, select, text
from sqlalchemy.exc import DBAPIError

from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, KeyId, ModelId, Moment, RequestId, TenantId, Tokens
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.db.audit_log import AuditContext, read_entries
from serve_app.ledger.db.engines import open_writer, opened, transaction
from serve_app.ledger.db.schema import MIGRATIONS, migrate
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting.rate_limits import Demand
from serve_app.ledger.reports.balances import balances
from serve_app.ledger.reports.usage import Grouping, UsageFilter, usage
from serve_app.ledger.writer import maintenance
from serve_app.ports import Usage
from tests.support import postings
from tests.support.killed import kills
from tests.support.ledger import MODEL, TIMEOUT_S

CONFIG = Config()
CONFIG.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
VERSIONS = [each.revision for each in ScriptDirectory.from_config(CONFIG).walk_revisions()]
HEAD, *EARLIER = VERSIONS

TENANTS = [
    {"id": "tn_1", "name": "acme", "available": 1_000 - 30 - 24 - 8, "created_at": 1_000},
    {"id": "tn_2", "name": "bolt", "available": 0, "created_at": 2_000},
]
KEYS = [
    ("k1", "tn_1", "laptop", '["rerank"]', None, None, None),
    ("k2", "tn_1", "old", '["rerank", "admin"]', '["embedded"]', 9_000, 8_000),
    ("k3", "tn_2", "other", '["rerank"]', None, None, None),
]
GRANTS = [("gr_1", "tn_1", 900, "first credit"), ("gr_2", "tn_1", 100, "invoice 17")]
RESERVATIONS = [
    # id, key, amount, state, charged, documents, tokens, settled at
    ("rr_pending", "k1", 30, "pending", 0, 0, 0, None),
    ("rr_charged", "k1", 40, "committed", 24, 3, 90, 5_000),
    ("rr_charged_too", "k2", 8, "committed", 8, 1, 30, 6_000),
    ("rr_voided", "k1", 16, "voided", 0, 2, 60, 5_500),
    ("rr_expired", "k1", 16, "expired", 0, 0, 0, 7_000),
]


RENAMED = {
    "admin_acts": "audit_log",
    "act": "action",
    "requests_at_once_max": "concurrent_requests_max",
    "month_amount_max": "monthly_budget_micro_dollars",
}
"""New names of tables and columns."""


def renamed(name: str) -> str:
    return RENAMED.get(name, name)


def fill(connection: Connection) -> None:
    """Add rows of every kind to the tables of v0001, which later versions also have."""
    add(connection, "tenants", TENANTS)
    names = ("id", "tenant_id", "label", "scopes", "models", "expires_at", "revoked_at")
    keys = [dict(zip(names, key, strict=True)) for key in KEYS]
    add(
        connection,
        "api_keys",
        [key | {"created_at": 1, "secret_sha256": b"\7" * 32} for key in keys],
    )
    grant_names = ("id", "tenant_id", "amount", "reason")
    grants = [dict(zip(grant_names, grant, strict=True)) for grant in GRANTS]
    add(
        connection,
        "grants",
        [grant | {"granted_by": "ops", "created_at": 1_500} for grant in grants],
    )
    row_names = ("id", "key_id", "amount", "state", "charged", "documents", "tokens", "settled_at")
    same = {"tenant_id": "tn_1", "model": "embedded", "created_at": 4_000, "expires_at": 64_000}
    rows = [dict(zip(row_names, each, strict=True)) | same for each in RESERVATIONS]
    add(connection, "reservations", rows)
    add(
        connection,
        "charges",
        [
            {
                "request_id": row["id"],
                "tenant_id": "tn_1",
                "key_id": row["key_id"],
                "model": "embedded",
                "documents": row["documents"],
                "tokens": row["tokens"],
                "amount": row["charged"],
                "charged_at": row["settled_at"],
            }
            for row in rows
            if row["state"] == "committed"
        ],
    )


def fill_limits(connection: Connection) -> None:
    for table in ("tenants", "api_keys"):
        connection.execute(
            text(f"UPDATE {table} SET requests_at_once_max = 3, month_amount_max = 900")  # noqa: S608 - names of this file
        )


def fill_audit_log(connection: Connection) -> None:
    entry = {"at": 1_500, "who": "ops", "act": "tenant.limits", "tenant_id": "tn_1"}
    add(connection, "admin_acts", [entry | {"subject": "tn_1", "details": "{}"}])


def column_names(connection: Connection, table: str) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(table)}


def add(connection: Connection, table: str, rows: list[dict[str, Any]]) -> None:
    names = ", ".join(rows[0])
    marks = ", ".join(f":{name}" for name in rows[0])
    insert = f"INSERT INTO {table} ({names}) VALUES ({marks})"  # noqa: S608 - names of this file
    connection.execute(text(insert), rows)


def upgrade(connection: Connection, revision: str) -> None:
    CONFIG.attributes["connection"] = connection
    command.upgrade(CONFIG, revision)


@pytest.fixture(params=EARLIER)
def old_url(empty_url: str, request: pytest.FixtureRequest) -> str:
    """A database of an earlier version, with data."""
    with transaction(empty_url, TIMEOUT_S) as connection:
        upgrade(connection, request.param)
        fill(connection)
        if inspect(connection).has_table("admin_acts"):
            fill_audit_log(connection)
        if "month_amount_max" in column_names(connection, "tenants"):
            fill_limits(connection)
    return empty_url


def contents(url: str) -> dict[str, Any]:
    """Return every table's columns, rows and index names, and the version."""
    with transaction(url, TIMEOUT_S) as connection:
        known = MetaData()
        known.reflect(connection)
        return {
            name: (
                list(table.c.keys()),
                sorted(map(repr, connection.execute(select(table)).all())),
                sorted(str(index["name"]) for index in inspect(connection).get_indexes(name)),
            )
            for name, table in known.tables.items()
        }


def values(url: str, columns: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the rows of these columns."""
    with transaction(url, TIMEOUT_S) as connection:
        known = MetaData()
        known.reflect(connection)
        return {
            name: sorted(
                repr(tuple(row))
                for row in connection.execute(
                    select(*(known.tables[name].c[each] for each in wanted))
                )
            )
            for name, wanted in columns.items()
        }


def test_nothing_is_lost_and_the_books_balance(old_url: str) -> None:
    columns = {
        name: names for name, (names, *_) in contents(old_url).items() if name != "alembic_version"
    }
    before = values(old_url, columns)
    assert all(
        before[name] for name in ("tenants", "api_keys", "grants", "reservations", "charges")
    )

    migrate(old_url)

    now = {renamed(name): [renamed(each) for each in names] for name, names in columns.items()}
    assert values(old_url, now) == {renamed(name): rows for name, rows in before.items()}
    with transaction(old_url, TIMEOUT_S) as connection:
        acme, bolt = balances(connection)
    assert acme.adds_up
    assert (acme.granted, acme.available, acme.pending, acme.charged) == (1_000, 938, 30, 32)
    assert (bolt.granted, bolt.available) == (0, 0)


def test_accounts_from_before_the_migration_work_afterwards(old_url: str) -> None:
    migrate(old_url)

    with transaction(old_url, TIMEOUT_S) as connection:
        tenant = tenant_accounts.find_tenant(connection, "acme")
        key = tenant_keys.find_keys(connection, [KeyId("k2")])[KeyId("k2")]
        assert key.caller.scopes == frozenset({"rerank", "admin"})
        assert key.caller.models == frozenset({MODEL})
        assert (key.expires_at, key.revoked_at) == (9_000, 8_000)
        kinds = {each.kind for each in credit_grants.list_grants(connection, tenant.id)}
        assert kinds == {"grant"}
        (row,) = usage(connection, UsageFilter(tenant.id), Grouping.MODEL)
        assert (row.requests, row.requests_not_charged, row.charged) == (4, 2, 32)
    now = Moment(70_000)
    with transaction(old_url, TIMEOUT_S) as connection:
        assert maintenance.expire_due(connection, now, 10) == 1
    pay(old_url, now)
    with transaction(old_url, TIMEOUT_S) as connection:
        refund = credit_grants.refund(
            connection, RequestId("rr_charged"), None, "late", AuditContext("ops", now)
        )
        assert refund.amount == 24
        acme, _ = balances(connection)
        assert acme.adds_up
        assert (acme.pending, acme.charged) == (0, 37)
        *old, new = read_entries(connection)
        assert {(each.who, each.action) for each in old} <= {("ops", "tenant.limits")}
        assert new.action == "credit.refund"


def pay(url: str, now: Moment) -> None:
    caller = Caller(TenantId("tn_1"), KeyId("k1"), frozenset({"rerank"}), None)
    wanted = Reservation(
        RequestId("rr_new"),
        caller.tenant,
        caller.key_id,
        ModelId("embedded"),
        Credits(9),
        now,
        Moment(now + 60_000),
    )
    with transaction(url, TIMEOUT_S) as connection:
        postings.reserve(connection, wanted, Demand(5))
    with transaction(url, TIMEOUT_S) as connection:
        postings.commit(connection, wanted.request_id, Credits(5), Usage(5, Tokens(99)), now)


REFUSED = [
    "UPDATE tenants SET available = -1 WHERE id = 'tn_1'",
    "INSERT INTO tenants (id, name, available, created_at) VALUES ('tn_3', 'acme', 0, 0)",
    "UPDATE grants SET amount = -1 WHERE id = 'gr_1'",
    "UPDATE grants SET amount = 0 WHERE id = 'gr_1'",
    "UPDATE grants SET amount = -1, kind = 'refund' WHERE id = 'gr_1'",
    "UPDATE grants SET kind = 'gift' WHERE id = 'gr_1'",
    "UPDATE grants SET idempotency_key = 'same'",
    "UPDATE reservations SET amount = -1, charged = -1 WHERE id = 'rr_pending'",
    "UPDATE reservations SET charged = amount + 1 WHERE id = 'rr_charged'",
    "UPDATE reservations SET state = 'lost' WHERE id = 'rr_pending'",
    "UPDATE charges SET amount = -1",
    "UPDATE charges SET tenant_id = 'tn_9'",
    "UPDATE api_keys SET tenant_id = 'tn_9'",
    "UPDATE audit_log SET who = 'another'",
    "DELETE FROM audit_log",
]


def test_forbidden_changes_are_refused(old_url: str) -> None:
    migrate(old_url)
    with opened(open_writer(old_url, TIMEOUT_S)) as engine:
        with engine.begin() as connection:
            tenant = tenant_accounts.find_tenant(connection, "acme")
            credit_grants.grant(
                connection, tenant.id, Credits(1), "why", AuditContext("ops", Moment(0))
            )
            credit_grants.grant(
                connection, tenant.id, Credits(-1), "typo", AuditContext("ops", Moment(0))
            )
        kept = contents(old_url)

        for statement in REFUSED:
            with pytest.raises(DBAPIError):
                attempt(engine, statement)

        assert contents(old_url) == kept


def attempt(engine: Engine, statement: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(statement))


@pytest.mark.slow
def test_a_killed_migration_leaves_the_old_schema_intact(old_url: str) -> None:
    old = contents(old_url)
    code = """
from serve_app.ledger.db.schema import migrate

migrate(url)
"""
    killed: list[dict[str, Any]] = []

    assert kills(code, old_url, lambda: killed.append(contents(old_url)), every=7) >= 2

    assert all(each == old for each in killed)
    with transaction(old_url, TIMEOUT_S) as connection:
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
        assert all(each.adds_up for each in balances(connection))
