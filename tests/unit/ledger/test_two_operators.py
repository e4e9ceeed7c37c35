"""Operators and requests that change the same account concurrently."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import pytest
from sqlalchemy import Connection, Engine

from serve_app.domain.errors import OutOfCredit
from serve_app.domain.model import Caller, LimitChanges, RateLimits
from serve_app.domain.units import Credits, KeyId, Seconds
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.accounts.credit_grants import Grant
from serve_app.ledger.accounts.tenant_accounts import AccountConflict, AccountProblem
from serve_app.ledger.db import audit_log
from tests.support import postings
from tests.support.ledger import AUDIT, NOW, R1, USAGE, a_reservation, a_tenant, balance_in

Change = Callable[[Connection], object]

AT_ONCE = 4


def at_once(engine: Engine, changes: Sequence[Change]) -> list[object]:
    """Run the changes concurrently and return their results or errors."""
    barrier = Barrier(len(changes))

    def run(change: Change) -> object:
        barrier.wait()
        try:
            with engine.begin() as connection:
                return change(connection)
        except (AccountProblem, OutOfCredit) as refusal:
            return refusal

    with ThreadPoolExecutor(len(changes)) as threads:
        return list(threads.map(run, changes))


def charged(engine: Engine, caller: Caller, amount: int) -> None:
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(caller, amount))
        postings.commit(connection, R1, Credits(amount), USAGE, NOW)


def test_concurrently_created_look_alikes_are_one_tenant(engine: Engine) -> None:
    names = ("acme", "ACME", "аcme", "acmе")  # noqa: RUF001 - the last two have a Cyrillic letter
    makers = [partial(tenant_accounts.create_tenant, name=name, audit=AUDIT) for name in names]

    made = at_once(engine, makers)

    assert sorted(type(each).__name__ for each in made) == [*["AccountConflict"] * 3, "Tenant"]


def test_concurrent_grants_with_one_idempotency_key_are_one_grant(
    engine: Engine, acme: Caller
) -> None:
    pay = partial(
        credit_grants.grant,
        tenant=acme.tenant,
        amount=Credits(25),
        reason="invoice 17",
        audit=AUDIT,
        idempotency_key="payment 9",
    )

    made = at_once(engine, [pay] * AT_ONCE)

    assert all(isinstance(each, Grant) for each in made)
    assert len({each.id for each in made if isinstance(each, Grant)}) == 1
    assert balance_in(engine).available == 125


def test_an_idempotency_key_belongs_to_one_tenant(
    engine: Engine, acme: Caller, database_url: str
) -> None:
    bolt = a_tenant(database_url, 0, "bolt")
    changes = [
        partial(
            credit_grants.grant,
            tenant=each.tenant,
            amount=Credits(25),
            reason="invoice 17",
            audit=AUDIT,
            idempotency_key="payment 9",
        )
        for each in (acme, bolt)
    ]

    made = at_once(engine, changes)

    assert sorted(type(each).__name__ for each in made) == ["AccountConflict", "Grant"]


@pytest.mark.parametrize(("amount", "given"), [(None, 40), (30, 30)])
def test_concurrent_refunds_never_exceed_their_charge(
    engine: Engine, acme: Caller, amount: int | None, given: int
) -> None:
    charged(engine, acme, 40)
    wanted = None if amount is None else Credits(amount)
    refund = partial(
        credit_grants.refund, request_id=R1, amount=wanted, reason="sorry", audit=AUDIT
    )

    made = at_once(engine, [refund] * AT_ONCE)

    assert sum(isinstance(each, Grant) for each in made) == 1
    assert sum(isinstance(each, AccountProblem) for each in made) == AT_ONCE - 1
    assert balance_in(engine).available == 60 + given


def test_a_reversal_leaves_nothing_to_refund(engine: Engine, acme: Caller) -> None:
    charged(engine, acme, 40)
    with engine.begin() as connection:
        postings.reverse(connection, R1, USAGE, NOW)

        with pytest.raises(AccountProblem, match="no charge"):
            credit_grants.refund(connection, R1, None, "sorry", AUDIT)

    assert balance_in(engine).available == 100


def test_a_key_is_rotated_once(engine: Engine, acme: Caller) -> None:
    changes = [
        partial(
            tenant_keys.rotate_key,
            key_id=acme.key_id,
            new=(KeyId(f"k{number}"), bytes(32)),
            overlap_s=Seconds(60),
            audit=AUDIT,
        )
        for number in range(AT_ONCE)
    ]

    made = at_once(engine, changes)

    assert sum(isinstance(each, AccountConflict) for each in made) == AT_ONCE - 1
    with engine.begin() as connection:
        old, new = tenant_keys.list_keys(connection, acme.tenant)
        if old.replaces is not None:
            old, new = new, old
        assert (old.stored.expires_at, new.stored.expires_at) == (NOW + 60_000, None)
        assert new.replaces == acme.key_id


def test_concurrent_tenants_never_share_a_name(engine: Engine) -> None:
    create = partial(tenant_accounts.create_tenant, name="acme", audit=AUDIT)

    made = at_once(engine, [create] * AT_ONCE)

    assert sum(isinstance(each, AccountConflict) for each in made) == AT_ONCE - 1
    with engine.begin() as connection:
        assert len(tenant_accounts.list_tenants(connection)) == 1
        assert len(audit_log.read_entries(connection)) == 1


def test_concurrently_set_limits_are_all_set(engine: Engine, acme: Caller) -> None:
    fives: list[LimitChanges] = [
        {"requests_per_minute_max": 5},
        {"documents_per_minute_max": 5},
        {"concurrent_requests_max": 5},
    ]
    of_tenant: list[Change] = [
        partial(
            tenant_accounts.change_tenant, name=acme.tenant, limits=limits, below=None, audit=AUDIT
        )
        for limits in fives
    ]
    of_key: list[Change] = [
        partial(tenant_keys.change_key_limits, key_id=acme.key_id, limits=limits, audit=AUDIT)
        for limits in fives
    ]

    at_once(engine, [*of_tenant, *of_key])

    with engine.begin() as connection:
        limits = tenant_accounts.find_tenant(connection, acme.tenant).limits
        key_limits = tenant_keys.get_key(connection, acme.key_id).stored.caller.key_limits
    assert limits == key_limits == RateLimits(5, 5, 5)


def test_a_correction_and_reservations_never_take_the_same_credit(
    engine: Engine, acme: Caller
) -> None:
    def reserve(connection: Connection, number: int) -> object:
        postings.reserve(connection, a_reservation(acme, 60, f"r{number}"))
        return None

    correct = partial(
        credit_grants.grant, tenant=acme.tenant, amount=Credits(-60), reason="typo", audit=AUDIT
    )
    changes: list[Change] = [correct, *(partial(reserve, number=number) for number in range(3))]

    made = at_once(engine, changes)

    refused = [each for each in made if isinstance(each, Exception)]
    assert len(refused) == len(changes) - 1
    assert balance_in(engine).available == 40
