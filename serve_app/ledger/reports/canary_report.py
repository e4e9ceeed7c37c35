"""Comparison of a model's canary with its live revision."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Row, func, select

from serve_app.domain.canary import DEPTH
from serve_app.domain.units import ModelId, Moment, Revision
from serve_app.ledger.db.tables import (
    IS_NOT_CHARGED,
    IS_SETTLED,
    charges,
    reservations,
    shadow_comparisons,
)

ROWS_MAX = 100_000
"""Most comparisons in a report, the newest ones."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Agreement of the rankings of both revisions: 1 if they are equal."""

    jobs: int
    """Jobs with enough documents for a difference."""

    mean: float
    p10: float


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and tokens of one revision."""

    revision: Revision
    run_s_p50: float
    run_s_p99: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Shadowed:
    """The comparisons of one pair of revisions."""

    jobs: int
    first_at: Moment
    last_at: Moment
    overlap_at_10: Agreement | None
    kendall_tau: Agreement | None
    live: Cost
    canary: Cost


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of clients to one revision."""

    revision: Revision
    requests: int
    errors: int
    """Not charged: they failed, or their client disconnected."""

    tokens: int


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """Empty if the model had no request."""

    model: ModelId
    shadows: list[Shadowed]
    requests: list[Requests]


def canary_report(connection: Connection, model: ModelId, since: Moment) -> CanaryReport:
    newest = (
        select(shadow_comparisons)
        .where(shadow_comparisons.c.model == model, shadow_comparisons.c.compared_at >= since)
        .order_by(shadow_comparisons.c.compared_at.desc())
        .limit(ROWS_MAX)
    )
    pairs: defaultdict[tuple[str, str], list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(newest):
        pairs[row.live, row.canary].append(row)
    return CanaryReport(
        model,
        [_shadowed(rows) for _, rows in sorted(pairs.items())],
        _requests(connection, model, since),
    )


def _shadowed(rows: Sequence[Row[Any]]) -> Shadowed:
    times = [row.compared_at for row in rows]
    return Shadowed(
        jobs=len(rows),
        first_at=min(times),
        last_at=max(times),
        overlap_at_10=_agreement([row.overlap_at_10 for row in rows if row.documents > DEPTH]),
        kendall_tau=_agreement([row.kendall_tau for row in rows if row.documents > 1]),
        live=_cost(rows, "live"),
        canary=_cost(rows, "canary"),
    )


def _agreement(values: Sequence[float]) -> Agreement | None:
    if not values:
        return None
    return Agreement(len(values), math.fsum(values) / len(values), _quantile(values, 0.1))


def _cost(rows: Sequence[Row[Any]], side: str) -> Cost:
    run_s = [*map(attrgetter(f"{side}_run_s"), rows)]
    tokens = sum(map(attrgetter(f"{side}_tokens"), rows))
    revision = Revision(getattr(rows[0], side))
    return Cost(revision, _quantile(run_s, 0.5), _quantile(run_s, 0.99), tokens)


def _quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest of ``values`` that is at least as large as ``share`` of them."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def _requests(connection: Connection, model: ModelId, since: Moment) -> list[Requests]:
    charged = (
        select(charges.c.revision, func.count(), func.sum(charges.c.tokens))
        .where(charges.c.model == model, charges.c.charged_at >= since)
        .group_by(charges.c.revision)
    )
    failed = (
        select(reservations.c.revision, func.count(), func.sum(reservations.c.tokens))
        .where(IS_SETTLED, IS_NOT_CHARGED)
        .where(reservations.c.model == model, reservations.c.settled_at >= since)
        .group_by(reservations.c.revision)
    )
    sums: dict[str, list[int]] = {}
    for query, is_error in ((charged, 0), (failed, 1)):
        for revision, number, tokens in connection.execute(query):
            known = sums.setdefault(revision, [0, 0, 0])
            # PostgreSQL's sums are decimals.
            added = (number, is_error * number, int(tokens))
            sums[revision] = [one + other for one, other in zip(known, added, strict=True)]
    return [Requests(Revision(name), *numbers) for name, numbers in sorted(sums.items())]
