"""What an operator sets up, and what the reports say of it."""

import pytest
from sqlalchemy import Engine

from serve_app.domain.units import Credits, KeyId, ModelId, Moment, TenantId, Tokens
from serve_app.ledger import accounts, credit_grants, store, tenant_keys
from serve_app.ledger.accounts import AccountProblem
from serve_app.ledger.admin_acts import Act
from serve_app.ledger.tenant_keys import NewKey
from serve_app.ledger.usage import Grouping, UsageFilter, UsageRow, usage
from serve_app.ports import Usage
from tests.unit.ledger.support import ACT, MODEL, NOW, R1, USAGE, a_reservation, a_tenant

DAY_MS = 86_400_000


@pytest.mark.parametrize("name", ["", "  ", "two\nlines", "nul\0", "x" * 129])
def test_a_name_that_cannot_be_printed_on_one_line_is_refused(engine: Engine, name: str) -> None:
    with pytest.raises(AccountProblem), engine.begin() as connection:
        accounts.create_tenant(connection, name, ACT)


def test_a_name_is_used_once_and_the_refusal_leaves_the_transaction_usable(engine: Engine) -> None:
    with engine.begin() as connection:
        first = accounts.create_tenant(connection, "acme", ACT)
        with pytest.raises(AccountProblem, match="already"):
            accounts.create_tenant(connection, "acme", ACT)
        second = accounts.create_tenant(connection, "bolt", ACT)

        assert accounts.list_tenants(connection) == [first, second]


def test_a_tenant_is_found_by_name_and_by_id_but_never_mistaken(engine: Engine) -> None:
    with engine.begin() as connection:
        first = accounts.create_tenant(connection, "acme", ACT)
        accounts.create_tenant(connection, first.id, ACT)

        assert accounts.find_tenant(connection, "acme") == first
        assert accounts.find_tenant(connection, first.id) == first
        with pytest.raises(AccountProblem, match="no tenant 'bolt'"):
            accounts.find_tenant(connection, "bolt")


def test_a_grant_to_nobody_is_refused(engine: Engine) -> None:
    with pytest.raises(AccountProblem), engine.begin() as connection:
        credit_grants.grant(connection, TenantId("tn_x"), Credits(1), "why", ACT)


def test_a_key_is_found_as_it_was_stored(engine: Engine) -> None:
    new = NewKey(KeyId("k1"), b"\1" * 32, "label", {"rerank"}, {ModelId("small")}, Moment(9))
    with engine.begin() as connection:
        tenant = accounts.create_tenant(connection, "acme", ACT)
        tenant_keys.create_key(connection, tenant.id, new, ACT)
        found = tenant_keys.find_key(connection, KeyId("k1"))

        assert found is not None
        assert (found.caller.tenant, found.secret_sha256) == (tenant.id, b"\1" * 32)
        assert found.caller.scopes == {"rerank"}
        assert found.caller.models == frozenset({ModelId("small")})
        assert (found.expires_at, found.revoked_at) == (9, None)


def test_a_revoked_key_keeps_the_date_of_its_first_revocation(
    engine: Engine, database_url: str
) -> None:
    caller = a_tenant(database_url, 0)
    with engine.begin() as connection:
        tenant_keys.revoke_key(connection, caller.key_id, Act("tester", Moment(5)))
        tenant_keys.revoke_key(connection, caller.key_id, Act("tester", Moment(6)))

        (key,) = tenant_keys.list_keys(connection, caller.tenant)
        assert key.stored.revoked_at == 5
        with pytest.raises(AccountProblem):
            tenant_keys.revoke_key(connection, KeyId("nobody"), ACT)


@pytest.fixture
def busy(engine: Engine, database_url: str) -> Engine:
    """acme: charged 30 on day 0 and 20 on day 1, one void on day 1; bolt: charged 5 on day 1."""
    acme, bolt = (a_tenant(database_url, 100, name) for name in ("acme", "bolt"))
    with engine.begin() as connection:
        for caller, amount, request_id, day in (
            (acme, 30, "r1", 0),
            (acme, 20, "r2", 1),
            (acme, 10, "r3", 1),
            (acme, 10, "still pending", 1),
            (bolt, 5, "r4", 1),
        ):
            wanted = a_reservation(caller, amount, request_id)
            store.reserve(connection, wanted)
            at = Moment(day * DAY_MS + 7)
            if request_id == "r3":
                store.void(connection, wanted.request_id, Usage(1, Tokens(9)), at)
            elif request_id != "still pending":
                store.commit(connection, wanted.request_id, wanted.amount, USAGE, at)
    return engine


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        (Grouping.DAY, [("0", 1, 0, 3, 0, 90, 30), (str(DAY_MS), 3, 1, 7, 1, 189, 25)]),
        (Grouping.MODEL, [(MODEL, 4, 1, 10, 1, 279, 55)]),
        (
            Grouping.KEY,
            [("key-of-acme", 3, 1, 7, 1, 189, 50), ("key-of-bolt", 1, 0, 3, 0, 90, 5)],
        ),
        (Grouping.TENANT, [("acme", 3, 1, 7, 1, 189, 50), ("bolt", 1, 0, 3, 0, 90, 5)]),
    ],
)
def test_usage_sums_up_what_was_charged_and_what_was_not(
    busy: Engine, by: Grouping, rows: list[tuple[str, int, int, int, int, int, int]]
) -> None:
    with busy.begin() as connection:
        found = usage(connection, UsageFilter(), by)

    assert found == [
        UsageRow(row[0], *row[1:5], tokens=Tokens(row[5]), charged=Credits(row[6])) for row in rows
    ]


@pytest.mark.parametrize(
    ("since", "until", "requests"),
    [(None, None, 4), (8, None, 3), (7, None, 4), (None, 7, 0), (None, 8, 1), (8, DAY_MS, 0)],
)
def test_usage_counts_from_since_on_and_before_until(
    busy: Engine, since: int | None, until: int | None, requests: int
) -> None:
    which = UsageFilter(
        since=None if since is None else Moment(since),
        until=None if until is None else Moment(until),
    )
    with busy.begin() as connection:
        found = usage(connection, which, Grouping.MODEL)

    assert sum(row.requests for row in found) == requests


def test_usage_of_one_tenant_leaves_out_the_others(busy: Engine) -> None:
    with busy.begin() as connection:
        bolt = accounts.find_tenant(connection, "bolt")
        (row,) = usage(connection, UsageFilter(bolt.id), Grouping.TENANT)

    assert (row.group, row.charged) == ("bolt", 5)


def test_a_reversed_charge_is_usage_that_was_not_charged(busy: Engine) -> None:
    with busy.begin() as connection:
        store.reverse(connection, R1, USAGE, NOW)
        (row,) = usage(connection, UsageFilter(), Grouping.MODEL)

    assert (row.requests, row.requests_not_charged, row.charged) == (4, 2, 25)
