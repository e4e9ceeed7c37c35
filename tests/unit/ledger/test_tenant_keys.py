"""Creation, limits, rotation, use and revocation of keys, also concurrently."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
from sqlalchemy import Engine, event

from serve_app.access.api_keys import SCOPES, ApiKey, generate
from serve_app.access.authenticator import Authenticator
from serve_app.domain.clock import SystemClock
from serve_app.domain.errors import SpendCapReached, Unauthenticated
from serve_app.domain.model import Caller, RateLimits
from serve_app.domain.units import Credits, KeyId, ModelId, Moment, RequestId, Seconds
from serve_app.ledger.accounts import tenant_accounts, tenant_keys
from serve_app.ledger.accounts.tenant_accounts import AccountProblem
from serve_app.ledger.accounts.tenant_keys import ROTATION_OVERLAP_S_MAX, Key, NewKey
from serve_app.ledger.db.audit_log import AuditContext, read_entries
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ledger.writer import maintenance
from tests.support import postings
from tests.support.fakes import FakeClock, some_metrics, until
from tests.support.ledger import (
    AUDIT,
    NOW,
    R1,
    USAGE,
    a_quote,
    a_reservation,
    ledger_on,
)

OVERLAP_S = Seconds(3_600)
OVERLAP_MS = 3_600_000
CAP = RateLimits(monthly_budget_micro_dollars=Credits(10))
_numbers = count()


def keys_of(engine: Engine, caller: Caller) -> dict[KeyId, Key]:
    with engine.connect() as connection:
        listed = tenant_keys.list_keys(connection, caller.tenant)
        return {key.stored.caller.key_id: key for key in listed}


def rotate(engine: Engine, old: KeyId, overlap_s: Seconds = OVERLAP_S, now: int = NOW) -> KeyId:
    new = KeyId(f"new-key-{next(_numbers)}")
    with engine.begin() as connection:
        audit = AuditContext("tester", Moment(now))
        tenant_keys.rotate_key(connection, old, (new, b"\7" * 32), overlap_s, audit)
    return new


def make_key(engine: Engine, caller: Caller, **more: Any) -> KeyId:
    fields = {
        "label": "made",
        "scopes": {"rerank"},
        "models": None,
        "expires_at": None,
    } | more
    key_id = KeyId(f"made-key-{next(_numbers)}")
    with engine.begin() as connection:
        new = NewKey(key_id, bytes(32), **fields)
        tenant_keys.create_key(connection, caller.tenant, new, AUDIT)
    return key_id


def test_a_rotated_key_passes_on_its_permissions(engine: Engine, acme: Caller) -> None:
    limits = RateLimits(5, 6, 7, Credits(8))
    old = make_key(
        engine,
        acme,
        label="laptop",
        scopes={"admin", "rerank"},
        models={ModelId("small")},
        expires_at=Moment(NOW + 10 * OVERLAP_MS),
        limits=limits,
    )

    new = rotate(engine, old)

    keys = keys_of(engine, acme)
    before, after = keys[old].stored, keys[new].stored
    assert after.caller == replace(before.caller, key_id=new)
    assert after.caller.key_limits == limits
    assert (after.secret_sha256, before.secret_sha256) == (b"\7" * 32, bytes(32))
    assert (keys[new].label, keys[new].replaces, keys[old].replaces) == ("laptop", old, None)
    assert after.expires_at == NOW + 10 * OVERLAP_MS
    assert before.expires_at == NOW + OVERLAP_MS
    assert before.revoked_at is None


@pytest.mark.parametrize(
    ("expires_at", "overlap_s", "end"),
    [
        (None, 0, NOW),
        (None, 60, NOW + 60_000),
        (NOW + 30_000, 60, NOW + 30_000),
        (NOW + 90_000, 60, NOW + 60_000),
        (None, ROTATION_OVERLAP_S_MAX, NOW + round(ROTATION_OVERLAP_S_MAX * 1_000)),
    ],
)
def test_the_old_key_ends_with_the_overlap_and_never_later_than_before(
    engine: Engine, acme: Caller, expires_at: int | None, overlap_s: float, end: int
) -> None:
    old = make_key(engine, acme, expires_at=expires_at)

    rotate(engine, old, Seconds(overlap_s))

    assert keys_of(engine, acme)[old].stored.expires_at == end


@pytest.mark.parametrize("overlap_s", [-1, ROTATION_OVERLAP_S_MAX + 1, float("nan")])
def test_an_absurd_overlap_is_refused(engine: Engine, acme: Caller, overlap_s: float) -> None:
    with pytest.raises(AccountProblem, match="overlap"):
        rotate(engine, acme.key_id, Seconds(overlap_s))


def test_an_expired_or_revoked_key_cannot_be_rotated(engine: Engine, acme: Caller) -> None:
    expired = make_key(engine, acme, expires_at=NOW)
    with engine.begin() as connection:
        tenant_keys.revoke_key(connection, acme.key_id, AUDIT)

    for key_id in (expired, acme.key_id, KeyId("nobody")):
        with pytest.raises(AccountProblem):
            rotate(engine, key_id)
    assert len(keys_of(engine, acme)) == 2


def test_a_key_is_rotated_once_and_its_successor_again(engine: Engine, acme: Caller) -> None:
    second = rotate(engine, acme.key_id)
    with pytest.raises(AccountProblem, match=second):
        rotate(engine, acme.key_id)
    third = rotate(engine, second)

    keys = keys_of(engine, acme)
    assert [keys[key_id].replaces for key_id in (second, third)] == [acme.key_id, second]
    assert keys[third].stored.expires_at is None


def both(first: Callable[[], object], second: Callable[[], object]) -> list[object]:
    """Return the results of two concurrent calls."""

    def outcome(call: Callable[[], object]) -> object:
        try:
            return call()
        except AccountProblem as problem:
            return problem

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(outcome, (first, second)))


def test_concurrent_rotations_of_a_key_create_one_new_key(engine: Engine, acme: Caller) -> None:
    outcomes = both(lambda: rotate(engine, acme.key_id), lambda: rotate(engine, acme.key_id))

    assert sum(isinstance(each, AccountProblem) for each in outcomes) == 1
    assert len(keys_of(engine, acme)) == 2


def test_the_monthly_spending_continues_after_a_rotation(engine: Engine, acme: Caller) -> None:
    with engine.begin() as connection:
        tenant_keys.set_key_limits(connection, acme.key_id, CAP, AUDIT)
        wanted = replace(a_reservation(acme, 7), key_capped=True)
        postings.reserve(connection, wanted)

    new = rotate(engine, acme.key_id)

    with engine.begin() as connection:
        heir = replace(acme, key_id=new)
        wanted = replace(a_reservation(heir, 3, "r2"), key_capped=True)
        postings.reserve(connection, wanted)
        with pytest.raises(SpendCapReached):
            postings.reserve(
                connection, replace(wanted, request_id=RequestId("r3"), amount=Credits(1))
            )


def test_the_monthly_spending_continues_when_the_budget_changes(
    engine: Engine, acme: Caller
) -> None:
    """The month is summed up only for the first cap, because that reads all its charges."""
    with engine.begin() as connection:
        tenant_keys.set_key_limits(connection, acme.key_id, CAP, AUDIT)
        postings.reserve(connection, replace(a_reservation(acme, 7), key_capped=True))
        statements: list[str] = []
        event.listen(
            connection, "before_cursor_execute", lambda *args: statements.append(str(args[2]))
        )
        higher = replace(CAP, monthly_budget_micro_dollars=Credits(12))
        tenant_keys.set_key_limits(connection, acme.key_id, higher, AUDIT)
        assert not any("FROM charges" in each for each in statements)
        wanted = replace(a_reservation(acme, 5, "r2"), key_capped=True)
        postings.reserve(connection, wanted)
        with pytest.raises(SpendCapReached):
            postings.reserve(
                connection, replace(wanted, request_id=RequestId("r3"), amount=Credits(1))
            )


def test_reservations_pending_when_a_budget_is_set_return_to_it(
    engine: Engine, acme: Caller
) -> None:
    with engine.begin() as connection:
        postings.reserve(connection, a_reservation(acme, 7))
        postings.reserve(connection, a_reservation(acme, 2, "r2"))
        tenant_keys.set_key_limits(connection, acme.key_id, CAP, AUDIT)
        postings.commit(connection, RequestId("r2"), Credits(2), USAGE, AUDIT.now)
        postings.void(connection, R1, USAGE, AUDIT.now)

        wanted = replace(a_reservation(acme, 8, "r3"), key_capped=True)
        postings.reserve(connection, wanted)
        with pytest.raises(SpendCapReached):
            postings.reserve(
                connection, replace(wanted, request_id=RequestId("r4"), amount=Credits(1))
            )


def test_revoking_twice_keeps_the_first_date_and_records_both(engine: Engine, acme: Caller) -> None:
    with engine.begin() as connection:
        for at in (NOW + 5, NOW + 6):
            tenant_keys.revoke_key(connection, acme.key_id, AuditContext("tester", Moment(at)))

        entries = read_entries(connection, acme.tenant)
    assert keys_of(engine, acme)[acme.key_id].stored.revoked_at == NOW + 5
    assert [entry.at for entry in entries if entry.action == "key.revoke"] == [NOW + 5, NOW + 6]


def test_every_change_of_a_key_is_in_the_audit_log_without_its_secret(
    engine: Engine, acme: Caller
) -> None:
    with engine.begin() as connection:
        tenant_keys.set_key_limits(connection, acme.key_id, CAP, AUDIT)
    new = rotate(engine, acme.key_id)

    with engine.connect() as connection:
        entries = read_entries(connection, acme.tenant)
    recorded = [
        (entry.action, entry.subject) for entry in entries if entry.action.startswith("key.")
    ]
    assert recorded == [
        ("key.create", acme.key_id),
        ("key.limits", acme.key_id),
        ("key.rotate", new),
    ]
    assert {entry.who for entry in entries} == {"tester"}
    assert (b"\7" * 32).hex() not in str(entries)


@pytest.mark.parametrize(
    "limits",
    [
        RateLimits(requests_per_minute_max=-1),
        RateLimits(documents_per_minute_max=10**15 + 1),
        RateLimits(monthly_budget_micro_dollars=Credits(2**63)),
    ],
)
def test_absurd_limits_are_refused(engine: Engine, acme: Caller, limits: RateLimits) -> None:
    with engine.begin() as connection:
        with pytest.raises(AccountProblem):
            tenant_keys.set_key_limits(connection, acme.key_id, limits, AUDIT)
        with pytest.raises(AccountProblem):
            tenant_accounts.set_tenant_limits(connection, acme.tenant, limits, AUDIT)
    with pytest.raises(AccountProblem):
        make_key(engine, acme, limits=limits)


def test_an_unknown_key_cannot_be_limited(engine: Engine) -> None:
    with engine.begin() as connection, pytest.raises(AccountProblem, match="nobody"):
        tenant_keys.set_key_limits(connection, KeyId("nobody"), CAP, AUDIT)


def test_keys_are_found_together(engine: Engine, acme: Caller) -> None:
    other = make_key(engine, acme)
    many = [KeyId(f"nobody-{number}") for number in range(498)]

    with engine.connect() as connection:
        found = tenant_keys.find_keys(connection, [*many, acme.key_id, other])

    assert {key_id: key.caller.key_id for key_id, key in found.items()} == {
        acme.key_id: acme.key_id,
        other: other,
    }


def test_the_last_use_is_written_by_the_writer_and_never_decreases(
    database_url: str, engine: Engine, acme: Caller
) -> None:
    clock = FakeClock()

    def last_used_at() -> int | None:
        return keys_of(engine, acme)[acme.key_id].last_used_at

    async def scenario(ledger: SqlLedger) -> None:
        await ledger.reserve(acme, a_quote(R1, 1))
        await until(lambda: last_used_at() == clock.moment())

    assert last_used_at() is None
    with ledger_on(database_url, clock=clock) as ledger:
        asyncio.run(scenario(ledger))
    used_at = clock.moment()

    with engine.begin() as connection:
        maintenance.touch_keys(connection, {acme.key_id: Moment(used_at - 1)})
    assert last_used_at() == used_at


class Gateway:
    """The authentication of one gateway, on a real database."""

    def __init__(self, ledger: SqlLedger) -> None:
        # Without a cache, which has its own tests.
        self._access = Authenticator(ledger, SystemClock(), some_metrics(), Seconds(0))

    def lets_in(self, key: ApiKey) -> Caller | None:
        async def scenario() -> Caller | None:
            try:
                return await self._access.authenticate([key.reveal()], *SCOPES)
            except Unauthenticated:
                return None

        return asyncio.run(scenario())


@pytest.fixture
def gateway(database_url: str) -> Iterator[Gateway]:
    with ledger_on(database_url) as ledger:
        yield Gateway(ledger)


def a_real_key(engine: Engine, caller: Caller, **more: Any) -> ApiKey:
    key = generate()
    fields = {"scopes": {"rerank"}, "models": None, "expires_at": None} | more
    with engine.begin() as connection:
        new = NewKey(key.key_id, key.secret_sha256, "real", **fields)
        tenant_keys.create_key(connection, caller.tenant, new, AUDIT)
    return key


def test_authentication_returns_scopes_models_and_limits(
    engine: Engine, acme: Caller, gateway: Gateway
) -> None:
    limits, of_tenant = RateLimits(requests_per_minute_max=3), RateLimits(concurrent_requests_max=4)
    key = a_real_key(engine, acme, scopes={"admin"}, models={ModelId("m")}, limits=limits)
    with engine.begin() as connection:
        tenant_accounts.set_tenant_limits(connection, acme.tenant, of_tenant, AUDIT)

    assert gateway.lets_in(key) == Caller(
        acme.tenant,
        key.key_id,
        frozenset({"admin"}),
        frozenset({ModelId("m")}),
        tenant_limits=of_tenant,
        key_limits=limits,
    )


def test_both_keys_are_accepted_during_the_overlap_and_then_only_the_new_one(
    engine: Engine, acme: Caller, gateway: Gateway
) -> None:
    now = SystemClock().moment()
    old, new, newer = a_real_key(engine, acme), generate(), generate()
    with engine.begin() as connection:
        audit = AuditContext("tester", now)
        handed = (new.key_id, new.secret_sha256)
        tenant_keys.rotate_key(connection, old.key_id, handed, OVERLAP_S, audit)
    assert gateway.lets_in(old)
    assert gateway.lets_in(new)

    with engine.begin() as connection:
        handed = (newer.key_id, newer.secret_sha256)
        tenant_keys.rotate_key(connection, new.key_id, handed, Seconds(0), audit)
    assert not gateway.lets_in(new)
    assert gateway.lets_in(newer)


def test_revoked_expired_forged_and_unknown_keys_are_refused(
    engine: Engine, acme: Caller, gateway: Gateway
) -> None:
    now = SystemClock().moment()
    good, revoked = (a_real_key(engine, acme) for _ in range(2))
    expired = a_real_key(engine, acme, expires_at=Moment(now - 1))
    later = a_real_key(engine, acme, expires_at=Moment(now + 10**9))
    with engine.begin() as connection:
        tenant_keys.revoke_key(connection, revoked.key_id, AUDIT)

    forged = replace(good, secret=generate().secret)
    for key, let_in in (
        (good, True),
        (later, True),
        (revoked, False),
        (expired, False),
        (forged, False),
        (generate(), False),
    ):
        assert bool(gateway.lets_in(key)) == let_in
