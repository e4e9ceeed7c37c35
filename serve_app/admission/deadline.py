"""Deadline admission: decide before any work whether a job can finish in time. No asyncio.

    hold ──(enough time? does it join a standing queue?)──> inside ──> leave

Under overload, excess requests must be rejected up front; otherwise replicas spend time on requests
that will miss their deadline. Two rules, based on recent throughput:

* A job and the work ahead of it must fit into three fifths of the job's time. By fair-queue order
  the work ahead is: all of its tenant's jobs in the same size class; from every other size class
  and every other tenant at most an equal share; from higher tiers up to their quota; nothing from
  lower tiers.
* A rejection at the end of a long queue means that the tenant has a standing queue, which only adds
  latency. It is then capped at 1.5 s of work, or at two jobs of the same size, which is enough to
  keep the throughput. The cap lasts half a minute, and twice as long each time the queue soon grows
  too long again: only lifting the cap shows the demand.

All amounts are in estimated tokens, because jobs are admitted before they are tokenized. The gate,
and not this module, limits memory.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import ServiceTier
from serve_app.domain.priority import PATIENCE, Claim, size_class
from serve_app.domain.units import Instant, RequestId, Seconds, TenantId, Tokens

TIME_SHARE_MAX = 0.6
"""Share of a job's time that the job and the work ahead of it may take. The rest is for later jobs
that overtake it."""

LITTLE = 0.25
"""A job of any length is admitted if the work ahead is below this share of the limit."""

LONG_S = 10.0
STANDING_S_MAX = 1.5
STANDING_JOBS_MAX = 2
SHORT_FOR_S = 30.0
SHORT_FOR_S_MAX = 480.0
"""Initial and maximum time for which a standing queue stays capped."""

BUSY_TOKENS = 16_384
BUSY_S = 0.75
"""With less admitted work than this (in tokens, or in seconds of work if that is less), throughput
reflects the demand and not the replicas' speed. About half of it is in flight to a replica."""

SPEED_WINDOW_S = 10.0
SPEED_KNOWN_S = 2.0
"""Busy time needed before a throughput estimate is valid."""

SILENCE_S = 3.0
SILENCE_RUNS = 3
"""A busy model that returns no scores for this time, or for this many batch run times if that is
longer, has no replica. Its throughput is then not measured."""

IDLE_S_MAX = 60.0
"""After this time with little admitted work the estimate expires: the replicas may have changed."""

ESTIMATES_KEPT = 0.99
"""Factor by which each job reduces the weight of earlier jobs in the estimate's correction."""

WEIGHT_MAX, STRANGE = 2_048, 4
"""Limits on a job's influence on the correction: its weight in estimated tokens, and the factor by
which its estimate counts as wrong."""

_TIERS = tuple(PATIENCE)


class Pace:
    """Throughput of one model in tokens/s while it has plenty of work. Time with little work or
    without a replica does not count."""

    def __init__(self) -> None:
        self._busy_s = 0.0  # Before `_since`.
        self._since: Instant | None = None
        # Busy time and tokens of each answer. The first one starts the time and is not counted.
        self._scored = deque([(0.0, 0)])
        self._tokens = 0
        self._answered_s = 0.0  # Busy time at the last answer.
        self._silence_s = SILENCE_S
        self._idle_since: Instant | None = None
        self._known: float | None = None

    def inside(self, tokens: float, now: Instant) -> None:
        was_busy = self._since is not None
        self._busy_s = self._busy_until(now)
        known = self._known
        enough = BUSY_TOKENS if known is None else min(BUSY_TOKENS, BUSY_S * known)
        self._since = now if tokens >= enough else None
        if was_busy and self._since is None:
            self._idle_since = now

    def scored(self, tokens: int, run_s: Seconds, now: Instant) -> None:
        self._silence_s = max(SILENCE_S, SILENCE_RUNS * run_s)
        busy_s = self._busy_until(now)
        if busy_s - self._answered_s > self._silence_s:
            self._forget()
            self._since = None if self._since is None else now
            busy_s = 0.0
        self._answered_s = busy_s
        if self._since is not None:
            self._scored.append((busy_s, tokens))
            self._tokens += tokens

    def tokens_per_s(self, now: Instant) -> float | None:
        """Return the throughput of the last ten busy seconds, else the last one known, if any."""
        idle_since = None if self._since is not None else self._idle_since
        if idle_since is not None and now - idle_since > IDLE_S_MAX:
            self._forget()
            self._idle_since = self._known = None
        if self._busy_until(now) - self._answered_s > self._silence_s:
            return self._known
        # Measure between answers: the number of large answers in a fixed window is arbitrary.
        until_s = self._scored[-1][0]
        while len(self._scored) > 1 and self._scored[1][0] <= until_s - SPEED_WINDOW_S:
            self._scored.popleft()
            self._tokens -= self._scored[0][1]
        span_s = until_s - self._scored[0][0]
        if span_s >= SPEED_KNOWN_S:
            self._known = self._tokens / span_s
        return self._known

    def _forget(self) -> None:
        """Discard the measurements; keep the last known throughput."""
        self._scored = deque([(0.0, 0)])
        self._tokens = 0
        self._busy_s = self._answered_s = 0.0

    def _busy_until(self, now: Instant) -> float:
        return self._busy_s + (0.0 if self._since is None else now - self._since)


class Forecast:
    """Admitted work of one model, by tier, tenant and size class."""

    def __init__(self, clock: Clock, *, refuses: bool = True) -> None:
        """``refuses=False`` admits every job; for a dispatcher without the fair queue."""
        self._clock = clock
        self._refuses = refuses
        self._pace = Pace()
        self._estimated = self._true = 1.0
        self._tenants: dict[ServiceTier, dict[TenantId, _Jobs]] = {tier: {} for tier in _TIERS}
        self._places: dict[RequestId, _Place] = {}
        self._tokens = 0.0
        self._standing = _Standing()

    def tokenized(self, estimate: Tokens, tokens: Tokens) -> None:
        """Learn from a job's true token count. A far-off estimate has limited influence."""
        weight = min(estimate, WEIGHT_MAX)
        of_one = min(max(tokens / estimate, 1 / STRANGE), STRANGE)
        self._estimated = ESTIMATES_KEPT * self._estimated + weight
        self._true = ESTIMATES_KEPT * self._true + weight * of_one

    def scored(self, job: RequestId, tokens: Tokens, run_s: Seconds) -> None:
        """Count a scored portion of ``tokens`` real tokens, from a batch that ran for ``run_s``."""
        self._pace.scored(tokens, run_s, self._clock.instant())
        place = self._places.get(job)
        if place is not None:
            self._set(place, max(0.0, place.left - tokens * self._estimate_of_a_token))

    @contextmanager
    def hold(self, job: RequestId, claim: Claim, tokens: Tokens, time_s: Seconds) -> Iterator[None]:
        """Count a job of about ``tokens`` as admitted while the block runs.

        Args:
            time_s: Time left until the job's deadline.

        Raises:
            Overloaded: The job would most likely miss its deadline. Nothing is held.
        """
        self._check(claim, tokens, time_s)
        jobs = self._tenants[claim.tier].setdefault(claim.tenant, _Jobs())
        place = self._places[job] = _Place(jobs, self._size(tokens))
        self._set(place, tokens)
        try:
            yield
        finally:
            self._set(place, 0.0)
            del self._places[job]
            jobs.count -= 1
            if not jobs.count:
                del self._tenants[claim.tier][claim.tenant]

    def _check(self, claim: Claim, tokens: Tokens, time_s: Seconds) -> None:
        now = self._clock.instant()
        real_speed = self._pace.tokens_per_s(now)
        if real_speed is None or not self._refuses:
            return
        speed = real_speed * self._estimate_of_a_token
        own, ahead = self._own(claim, tokens), self.ahead(claim, tokens)
        limit = speed * time_s * TIME_SHARE_MAX
        excess = ahead + tokens - limit if ahead > LITTLE * limit else 0.0
        standing = own - max(STANDING_S_MAX * speed, STANDING_JOBS_MAX * tokens)
        if excess > 0 and own > LONG_S * speed:
            self._standing.note(claim, now)
        if self._standing.lately(claim, now):
            excess = max(excess, standing)
        if excess > 0:
            raise Overloaded.until_gone(excess, speed)

    def ahead(self, claim: Claim, tokens: Tokens) -> float:
        """Return the tokens that most likely run before a new job of about ``tokens``."""
        own = self._own(claim, tokens)
        others = sum(
            min(jobs.tokens, own + tokens)
            for name, jobs in self._tenants[claim.tier].items()
            if name != claim.tenant
        )
        higher = _TIERS[: _TIERS.index(claim.tier)]
        before = sum(jobs.tokens for tier in higher for jobs in self._tenants[tier].values())
        return own + others + min(before, PATIENCE[claim.tier] * (own + others + tokens))

    def _own(self, claim: Claim, tokens: Tokens) -> float:
        jobs = self._tenants[claim.tier].get(claim.tenant)
        return 0.0 if jobs is None else jobs.before_another(tokens, self._size(tokens))

    def _size(self, tokens: Tokens) -> int:
        """Return the size class that the job will most likely have in the fair queue."""
        return size_class(tokens / self._estimate_of_a_token)

    @property
    def _estimate_of_a_token(self) -> float:
        return self._estimated / self._true

    def _set(self, place: "_Place", left: float) -> None:
        place.jobs.add(place.size, left - place.left)
        self._tokens += left - place.left
        place.left = left
        self._pace.inside(self._tokens, self._clock.instant())


class _Jobs:
    """Jobs of one tenant in one tier, summed by size class: ten thousand cost no more than ten."""

    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0.0
        self._of_size: dict[int, float] = {}

    def add(self, size: int, tokens: float) -> None:
        """Change the remaining tokens of a size class; ``tokens`` may be negative."""
        self._of_size[size] = self._of_size.get(size, 0.0) + tokens
        self.tokens += tokens

    def before_another(self, tokens: int, size: int) -> float:
        """Return the tokens that run before a new job of ``tokens`` in class ``size``."""
        alike = self._of_size.get(size, 0.0)
        return alike + sum(
            min(left, alike + tokens) for each, left in self._of_size.items() if each != size
        )


@dataclass(slots=True)
class _Place:
    """One admitted job."""

    jobs: _Jobs
    size: int
    left: float = 0.0

    def __post_init__(self) -> None:
        self.jobs.count += 1


@dataclass(frozen=True, slots=True)
class _Short:
    """The cap on a tenant's queue in one tier: its end and its duration."""

    until: Instant
    for_s: float


class _Standing:
    """Tenants that recently had a standing queue."""

    def __init__(self) -> None:
        self._short: dict[tuple[TenantId, ServiceTier], _Short] = {}

    def note(self, claim: Claim, now: Instant) -> None:
        if self.lately(claim, now):
            return
        self._short = {key: short for key, short in self._short.items() if _matters(short, now)}
        last = self._short.get((claim.tenant, claim.tier))
        for_s = SHORT_FOR_S if last is None else min(SHORT_FOR_S_MAX, 2 * last.for_s)
        self._short[claim.tenant, claim.tier] = _Short(Instant(now + for_s), for_s)

    def lately(self, claim: Claim, now: Instant) -> bool:
        short = self._short.get((claim.tenant, claim.tier))
        return short is not None and now < short.until


def _matters(short: _Short, now: Instant) -> bool:
    """Whether another standing queue would count as a repetition and double the duration."""
    return now < short.until + short.for_s
