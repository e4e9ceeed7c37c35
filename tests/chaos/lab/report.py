"""Compute the effect of a fault from the requests around it. Nothing here runs anything."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from serve_app.domain.units import Moment
from tests.chaos.lab.load import Sent

SERVED = "200"


@dataclass(frozen=True, slots=True)
class Window:
    """One fault, with the times around it."""

    fault: str
    host: str
    """The host that it hit."""

    host_is_away: bool
    """Whether the host's own HAProxy could not answer during the fault."""

    began_at: Moment
    """The start of the quiet time before the fault."""

    fault_at: Moment
    ended_at: Moment
    full_capacity_s: float | None
    """Time from the fault until all replicas ran again; ``None`` if that took too long."""

    shared: list[str]
    """Deployments of which two replicas were on one node afterwards."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The effect of one fault on the clients, and the time until it was over."""

    fault: str
    host: str
    sent: int
    """Requests from the fault to its end, through the HAProxy of every other host."""

    failed: int
    """Those of which no attempt was answered with 200."""

    repeated: int
    """Those whose first attempt was not answered with 200."""

    first_outcomes: dict[str, int]
    """Outcomes of the first attempts other than 200."""

    own_sent: int
    """Requests through the HAProxy of the host itself, if the fault took it away."""

    own_repeated: int
    own_failed: int
    p99_before_s: float
    p99_s: float
    slowest_s: float
    full_capacity_s: float | None
    shared: list[str]

    @property
    def p99_added_s(self) -> float:
        return round(self.p99_s - self.p99_before_s, 3)


def cost(window: Window, sent: Sequence[Sent]) -> Cost:
    """Return the cost of the fault in a window, from all requests of the run."""
    before = [
        each
        for each in sent
        if window.began_at <= each.exchange.sent_at and each.exchange.ended_at < window.fault_at
    ]
    during = hit(window, sent)
    own = [each for each in during if window.host_is_away and each.host == window.host]
    others = [each for each in during if each not in own]
    repeated = [each for each in others if each.first_outcome != SERVED]
    return Cost(
        fault=window.fault,
        host=window.host,
        sent=len(others),
        failed=sum(each.exchange.outcome != SERVED for each in others),
        repeated=len(repeated),
        first_outcomes=dict(Counter(each.first_outcome for each in repeated)),
        own_sent=len(own),
        own_repeated=sum(each.first_outcome != SERVED for each in own),
        own_failed=sum(each.exchange.outcome != SERVED for each in own),
        p99_before_s=percentile([each.total_s for each in before], 0.99),
        p99_s=percentile([each.total_s for each in others], 0.99),
        slowest_s=round(max((each.total_s for each in others), default=0.0), 3),
        full_capacity_s=window.full_capacity_s,
        shared=window.shared,
    )


def hit(window: Window, sent: Sequence[Sent]) -> list[Sent]:
    """Return the requests that were sent or still running during the fault.

    A request from before the quiet time belongs to the previous fault.
    """
    return [
        each
        for each in sent
        if window.began_at <= each.exchange.sent_at <= window.ended_at
        and window.fault_at <= each.exchange.ended_at
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that is not below ``share`` of all; 0 without values."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 3)
