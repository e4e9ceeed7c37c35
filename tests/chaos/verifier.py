"""Compare the clients' observations with the ledger, and decide whether a run was correct.

A client must see 200 if and only if the ledger has exactly one charge for the request, with the
documents, tokens and amount of the answer. A charge without a 200 is allowed only in the known gaps
of docs/operate/billing-guarantees.md, and only if a fault of the run explains it.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from serve_app.domain.units import Moment
from serve_app.ledger.db.tables import api_keys, charges, reservations
from serve_app.ledger.reports.balances import balances
from tests.chaos.faults import Happened
from tests.chaos.traffic import GAVE_UP, HUNG_UP, NO_ANSWER, PRICE, Exchange

EXPIRY_GRACE_MS = 8_000
"""Gateways expire due reservations every 5 s; the rest is for a busy machine."""

KEY_CACHE_MS = 5_000
REVOCATION_GRACE_MS = 1_000
"""Time from the check of a key to the reservation, on a busy machine."""

REQUEST_MS = 8_000
"""Timeout of a request in a gateway."""

KILL_MS = 100
"""Time from the decision to kill a process to its end."""

REVERSAL_MS = 8_000
"""Time from the database's return to a reversal; gateways retry reversals every 5 s."""

EXCESS_MAX = 0.02
"""Tolerance of a limit per minute, in any 60 s, as a share of the limit."""

AFTER_HANG_UP = "the client disconnected, and no gateway noticed before COMMIT"
AFTER_COMMIT = "a gateway was killed between COMMIT and the last byte of the answer"
REVERSAL_LOST = "the database failed during COMMIT, and the gateway was killed before the reversal"
NOT_ANSWERED = {HUNG_UP, GAVE_UP, NO_ANSWER, "500 gateway_lost"}
FAULTS_OF_OURS = {"500 internal", "500 engine_failure"}


@dataclass(frozen=True, slots=True)
class Logged:
    """A gateway's log entry of a request. There is none if the gateway died during the request."""

    status: int
    charged: bool
    """Whether the gateway knew that the charge was committed."""


@dataclass(frozen=True, slots=True)
class Books:
    """The contents of the ledger, read in one snapshot."""

    charges: Sequence[RowMapping]
    reservations: Sequence[RowMapping]
    revoked_at: dict[str, Moment]
    """Time of revocation by key."""

    documents_per_minute_max: dict[str, int]
    """The limit by key, for keys that have one."""

    unbalanced: Sequence[str]
    """Tenants with grants that differ from the sum of available, pending and charged amounts."""

    tenants: int

    @classmethod
    def read(cls, connection: Connection) -> "Books":
        of_tenants = balances(connection)
        keys = connection.execute(select(api_keys)).all()
        return cls(
            connection.execute(select(charges)).mappings().all(),
            connection.execute(select(reservations)).mappings().all(),
            {key.id: key.revoked_at for key in keys if key.revoked_at is not None},
            {
                key.id: key.documents_per_minute_max
                for key in keys
                if key.documents_per_minute_max is not None
            },
            [str(each) for each in of_tenants if not each.adds_up],
            len(of_tenants),
        )


@dataclass(slots=True)
class Verdict:
    """The result of the verification."""

    violations: list[str] = field(default_factory=list)
    """Violated guarantees; a run succeeds only without any."""

    charged_without_200: Counter[str] = field(default_factory=Counter)
    """Number of allowed charges without a 200, by explanation."""


def verify(
    exchanges: Sequence[Exchange],
    faults: Sequence[Happened],
    books: Books,
    log: Mapping[str, Logged],
    now: Moment,
) -> Verdict:
    """Compare the exchanges with the ledger.

    Args:
        log: Log entries by the exchange's name.
        now: The time when the ledger was read.
    """
    verdict = Verdict()
    by_id = {row["request_id"]: row for row in books.charges}
    verdict.violations.extend(_answers(exchanges, by_id))
    verdict.violations.extend(
        f"{each.name}: {each.outcome}" for each in exchanges if each.outcome in FAULTS_OF_OURS
    )
    for row, exchange in _charges_without_200(exchanges, books, verdict):
        logged = log.get(exchange.name)
        explanation = _explanation(exchange, row["charged_at"], logged, faults)
        if explanation is None:
            verdict.violations.append(
                f"{exchange} got no 200, but is charged: {dict(row)}; the log says {logged}"
            )
        else:
            verdict.charged_without_200[explanation] += 1
    verdict.violations.extend(_reservations(books, by_id, now))
    verdict.violations.extend(_revocations(books))
    verdict.violations.extend(_rates(books))
    verdict.violations.extend(f"the books do not balance: {each}" for each in books.unbalanced)
    return verdict


def _answers(exchanges: Sequence[Exchange], by_id: dict[str, RowMapping]) -> Iterator[str]:
    """Check that every 200 has its charge, and that both match the request."""
    seen: set[str] = set()
    for exchange in exchanges:
        said = exchange.said
        if said is None:
            continue
        if said.request_id in seen:
            yield f"{exchange.name}: its id {said.request_id} was given to another request too"
        seen.add(said.request_id)
        asked = (exchange.documents, exchange.tokens, exchange.amount)
        reported = (said.documents, said.tokens, said.amount)
        if reported != asked:
            yield f"{exchange.name}: asked for {asked}, the answer said {reported}"
        row = by_id.get(said.request_id)
        if row is None:
            yield f"{exchange.name}: answered 200, but there is no charge {said.request_id}"
        elif (row["key_id"], *_measures(row)) != (exchange.key_id, *reported):
            yield f"{exchange.name}: the answer said {reported}, the charge is {dict(row)}"


def _charges_without_200(
    exchanges: Sequence[Exchange], books: Books, verdict: Verdict
) -> Iterator[tuple[RowMapping, Exchange]]:
    """Yield charges without an answer, each with its request; report those without a request."""
    answered = {each.said.request_id for each in exchanges if each.said}
    by_size = {(each.key_id, each.documents, each.tokens): each for each in exchanges}
    assert len(by_size) == len(exchanges), "two requests of a key look the same"
    charged = {each.name for each in exchanges if each.said}
    for row in books.charges:
        if row["request_id"] in answered:
            continue
        exchange = by_size.get((row["key_id"], row["documents"], row["tokens"]))
        if exchange is None:
            verdict.violations.append(f"a charge matches no request: {dict(row)}")
            continue
        if exchange.name in charged:
            verdict.violations.append(f"{exchange} is charged twice, also by {dict(row)}")
        elif row["amount"] != exchange.amount:
            verdict.violations.append(f"{exchange} is charged wrongly: {dict(row)}")
        else:
            yield row, exchange
        charged.add(exchange.name)


def _explanation(
    exchange: Exchange, charged_at: Moment, logged: Logged | None, faults: Sequence[Happened]
) -> str | None:
    """Return the documented gap that explains the charge, if a fault caused it."""
    kills = [each for each in faults if each.kind.kills_gateway]
    if logged is not None and not logged.charged:
        lost = logged.status == 503 and _reversal_was_lost(exchange, charged_at, faults, kills)
        return REVERSAL_LOST if lost else None
    if logged is not None and exchange.outcome in {HUNG_UP, GAVE_UP}:
        return AFTER_HANG_UP
    killed = any(
        charged_at <= kill.ended_at + KILL_MS and kill.began_at <= charged_at + REQUEST_MS
        for kill in kills
    )
    return AFTER_COMMIT if killed and exchange.outcome in NOT_ANSWERED else None


def _reversal_was_lost(
    exchange: Exchange,
    charged_at: Moment,
    faults: Sequence[Happened],
    kills: Sequence[Happened],
) -> bool:
    """Return whether the database failed the COMMIT, and a gateway died before the reversal."""
    return any(
        fault.began_at <= exchange.ended_at
        and exchange.sent_at <= fault.ended_at
        and any(
            charged_at <= kill.ended_at
            and kill.began_at <= max(fault.ended_at, exchange.ended_at) + REVERSAL_MS
            for kill in kills
        )
        for fault in faults
        if fault.kind.fails_database
    )


def _reservations(books: Books, by_id: dict[str, RowMapping], now: Moment) -> Iterator[str]:
    """Check that no reservation is pending past its expiry, and that committed ones are charged."""
    committed = {row["id"]: row for row in books.reservations if row["state"] == "committed"}
    for request_id in by_id.keys() - committed.keys():
        yield f"the charge {request_id} has no committed reservation"
    for request_id, row in committed.items():
        charge = by_id.get(request_id)
        measures = (row["documents"], row["tokens"], row["charged"])
        if charge is None:
            yield f"a reservation is committed without a charge: {dict(row)}"
        elif measures != _measures(charge):
            yield f"the reservation {dict(row)} does not match its charge {dict(charge)}"
    for row in books.reservations:
        if row["state"] == "pending" and row["expires_at"] + EXPIRY_GRACE_MS < now:
            yield f"a reservation is pending past its expiry: {dict(row)}"
        if row["state"] == "expired" and row["settled_at"] < row["expires_at"]:
            yield f"a reservation expired too early: {dict(row)}"


def _revocations(books: Books) -> Iterator[str]:
    """Check that a revoked key reserved nothing once the gateways' key caches had expired."""
    for row in books.reservations:
        revoked_at = books.revoked_at.get(row["key_id"])
        if revoked_at is None:
            continue
        if row["created_at"] > revoked_at + KEY_CACHE_MS + REVOCATION_GRACE_MS:
            yield f"a key that was revoked at {revoked_at} was used: {dict(row)}"


def _rates(books: Books) -> Iterator[str]:
    """Check that no key reserved more than its limit in any 60 s."""
    for key_id, limit in books.documents_per_minute_max.items():
        rows = sorted(
            (row["created_at"], row["amount"] // PRICE)
            for row in books.reservations
            if row["key_id"] == key_id
        )
        window: deque[tuple[int, int]] = deque()
        for moment, documents in rows:
            window.append((moment, documents))
            while window[0][0] <= moment - 60_000:
                window.popleft()
            if (most := sum(count for _, count in window)) > limit * (1 + EXCESS_MAX):
                yield f"{most} documents of {key_id} in the 60 s to {moment}, of {limit}"


def _measures(charge: RowMapping) -> tuple[Any, ...]:
    return charge["documents"], charge["tokens"], charge["amount"]
