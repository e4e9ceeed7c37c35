"""A group of operations has the same effect as the operations one by one."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import Connection, Engine, Table, select

from serve_app.domain.errors import RerankError
from serve_app.domain.model import Caller, RateLimits
from serve_app.domain.units import Credits, Moment, RequestId
from serve_app.ledger.accounts import tenant_accounts, tenant_keys
from serve_app.ledger.db.tables import (
    api_keys,
    charges,
    outbox,
    rate_windows,
    reservations,
    tenants,
)
from serve_app.ledger.posting.books import Books
from serve_app.ledger.posting.rate_limits import Demand
from serve_app.ledger.reports.balances import check_balances
from tests.support.ledger import AUDIT, NOW, USAGE, a_reservation, a_tenant

IDS = [RequestId(f"r{number}") for number in range(12)]
TENANT_LIMITS = RateLimits(documents_per_minute_max=300, concurrent_requests_max=4)
KEY_LIMITS = RateLimits(requests_per_minute_max=20, monthly_budget_micro_dollars=Credits(120))
Step = tuple[str, RequestId, int, Moment]


@pytest.fixture
def callers(database_url: str, engine: Engine) -> list[Caller]:
    """Three callers: without limits, with tenant limits, and with key limits."""
    made = [a_tenant(database_url, 400, name) for name in ("free", "bound", "capped")]
    with engine.begin() as connection:
        for caller in made:
            tenant_accounts.set_alerts(
                connection, caller.tenant, [Credits(380), Credits(300)], AUDIT
            )
        tenant_accounts.set_tenant_limits(connection, made[1].tenant, TENANT_LIMITS, AUDIT)
        tenant_keys.set_key_limits(connection, made[2].key_id, KEY_LIMITS, AUDIT)
    made[1] = replace(made[1], tenant_limits=TENANT_LIMITS)
    made[2] = replace(made[2], key_limits=KEY_LIMITS)
    return made


def some_steps(rng: random.Random) -> list[Step]:
    """Random reservations and settlements over time, of few ids, so that they interact."""
    kinds = ["reserve"] * 5 + ["commit"] * 3 + ["void", "reverse", "expire"]
    now, steps = NOW, []
    for _ in range(80):
        now = Moment(now + rng.choice([0, 10, 2_000]))
        steps.append((rng.choice(kinds), rng.choice(IDS), rng.choice([8, 8, 40]), now))
    return steps


def apply(books: Books, step: Step, callers: Sequence[Caller]) -> str:
    """Apply a step and return its result or error as text."""
    kind, request_id, amount, now = step
    caller = callers[IDS.index(request_id) % len(callers)]
    try:
        match kind:
            case "reserve":
                wanted = replace(
                    a_reservation(caller, amount, request_id, expires_at=now + 20_000),
                    created_at=now,
                    key_capped=caller.key_limits.monthly_budget_micro_dollars is not None,
                )
                demand = Demand(amount, caller.key_limits, caller.tenant_limits)
                return str(books.reserve(wanted, demand).rate_limits)
            case "commit":
                books.commit(request_id, Credits(8), USAGE, now)
            case "void":
                books.void(request_id, USAGE, now)
            case "reverse":
                books.reverse(request_id, USAGE, now)
            case _:
                books.expire(now)
    except RerankError as refusal:
        return f"{type(refusal).__name__} {refusal.args}"
    return "done"


def outcome(
    engine: Engine, groups: Sequence[Sequence[Step]], callers: Sequence[Caller]
) -> tuple[list[str], list[tuple[object, ...]]]:
    """Return the results and all rows after the groups, then roll everything back."""
    results = []
    with engine.connect() as connection, connection.begin() as everything:
        for group in groups:
            tenant_ids = {caller.tenant for caller in callers}
            books = Books.open(connection, tenant_ids, IDS, events=True)
            results += [apply(books, step, callers) for step in group]
            books.write()
        assert check_balances(connection) == []
        found = rows(connection)
        everything.rollback()
    return results, found


def rows(connection: Connection) -> list[tuple[object, ...]]:
    """Return the rows of every table that a group can write, without generated numbers."""
    tables: list[Table] = [tenants, api_keys, reservations, charges, rate_windows, outbox]
    found: list[tuple[object, ...]] = []
    for table in tables:
        columns = [column for column in table.c if table is not outbox or column.name != "id"]
        found += [tuple(row) for row in connection.execute(select(*columns).order_by(columns[0]))]
    return found


@pytest.mark.parametrize("seed", range(10))
def test_grouping_changes_nothing(engine: Engine, callers: list[Caller], seed: int) -> None:
    rng = random.Random(seed)
    steps = some_steps(rng)
    cuts = sorted(rng.sample(range(1, len(steps)), 5))
    groups = [steps[start:end] for start, end in zip([0, *cuts], [*cuts, len(steps)], strict=True)]

    grouped = outcome(engine, groups, callers)
    alone = outcome(engine, [[step] for step in steps], callers)

    assert grouped == alone
    kinds = {each.split(" ")[0] for each in grouped[0]}
    assert {"done", "()", "ReservationClosed"} <= kinds
    assert any("RateLimit" in each or "SpendCap" in each for each in grouped[0])
