"""Whether a job can be done in its time, before anything of it is begun. No asyncio.

    hold ──(can it be done in its time? does it join a queue that stands?)──> inside ──> leave

A model that is asked for more than it can do must refuse what is too much, or work is done for
requests that run out of time all the same. Two rules, at the speed of late:

* What goes before a job, and itself, must fit into three fifths of its time. Before it goes what
  the fair queue lets go before it: its tenant's jobs of the same size, of each other size and of
  each other tenant no more than its own gets, of higher tiers what they are let pass, of lower ones
  nothing.
* A tenant that was refused at the end of a long queue has a queue that stands, and all that waits
  in it makes answers late. So it is kept a second and a half long, or two jobs of the same size,
  which is enough to lose no speed: for half a minute, and each time that it was too much again for
  twice as long, since nobody knows how much will be asked for without asking.

Everything is counted in estimated tokens, as jobs are let in before they are tokenized; the speed
is brought into the same unit. Decides nothing about memory: that is the gate's.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serve_app.dispatch.fair_queue import PATIENCE, Claim, size_class
from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import ServiceTier
from serve_app.domain.units import Instant, RequestId, Seconds, TenantId, Tokens

TIME_SHARE_MAX = 0.6
"""Of a job's time, for what goes before it and itself. Those that come later and go before it take
the rest."""

LITTLE = 0.25
"""Where less than this share of the limit is ahead, a job is let in however long itself takes."""

LONG_S = 10.0
STANDING_S_MAX = 1.5
STANDING_JOBS_MAX = 2
SHORT_FOR_S = 30.0
SHORT_FOR_S_MAX = 480.0
"""For so long at first, and at most, a queue that stood is kept short."""

BUSY_TOKENS = 16_384
BUSY_S = 0.75
"""With less than this inside, a model's speed says how little it was asked for: so many tokens, or
so long a time's work where that is less. A replica is sent about half of it ahead."""

SPEED_WINDOW_S = 10.0
SPEED_KNOWN_S = 2.0
"""Of being busy: less tells no speed."""

SILENCE_S = 3.0
SILENCE_RUNS = 3
"""A busy model that answers nothing for so long, or for so many runs of its batches if that is
longer, has no replica, and its speed is not known."""

IDLE_S_MAX = 60.0
"""After so long with little inside, its replicas may be others, and more or fewer."""

ESTIMATES_KEPT = 0.99
"""What a job leaves of the weight of those before it in what an estimate is worth."""

WEIGHT_MAX, STRANGE = 2_048, 4
"""A job of more estimated tokens weighs no more, and its estimate is wrong by no larger factor."""

_TIERS = tuple(PATIENCE)


class Pace:
    """Tokens/s of one model while it has plenty to do. Time without plenty does not count, nor does
    time without a replica."""

    def __init__(self) -> None:
        self._busy_s = 0.0  # Until `_since`.
        self._since: Instant | None = None
        # When, in busy time, and how much. The first is not counted: the time counts after it.
        self._scored = deque([(0.0, 0)])
        self._tokens = 0
        self._answered_s = 0.0  # Busy time of the last answer.
        self._silence_s = SILENCE_S
        self._idle_since: Instant | None = None
        self._known: float | None = None

    def inside(self, tokens: float, now: Instant) -> None:
        """So much is inside from now on."""
        was_busy = self._since is not None
        self._busy_s = self._busy_until(now)
        known = self._known
        enough = BUSY_TOKENS if known is None else min(BUSY_TOKENS, BUSY_S * known)
        self._since = now if tokens >= enough else None
        if was_busy and self._since is None:
            self._idle_since = now

    def scored(self, tokens: int, run_s: Seconds, now: Instant) -> None:
        """So much was done, in a batch that ran for ``run_s``."""
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
        """Of the last ten busy seconds, or as it was last known; ``None`` if it is not."""
        idle_since = None if self._since is not None else self._idle_since
        if idle_since is not None and now - idle_since > IDLE_S_MAX:
            self._forget()
            self._idle_since = self._known = None
        if self._busy_until(now) - self._answered_s > self._silence_s:
            return self._known
        # From answer to answer: a few large ones in a window of ten seconds would tell anything.
        until_s = self._scored[-1][0]
        while len(self._scored) > 1 and self._scored[1][0] <= until_s - SPEED_WINDOW_S:
            self._scored.popleft()
            self._tokens -= self._scored[0][1]
        span_s = until_s - self._scored[0][0]
        if span_s >= SPEED_KNOWN_S:
            self._known = self._tokens / span_s
        return self._known

    def _forget(self) -> None:
        """All but the speed as it was last known."""
        self._scored = deque([(0.0, 0)])
        self._tokens = 0
        self._busy_s = self._answered_s = 0.0

    def _busy_until(self, now: Instant) -> float:
        return self._busy_s + (0.0 if self._since is None else now - self._since)


class Forecast:
    """What is inside of one model's work, by who waits for whom."""

    def __init__(self, clock: Clock, *, refuses: bool = True) -> None:
        """Not ``refuses``: for a dispatch whose order it does not know."""
        self._clock = clock
        self._refuses = refuses
        self._pace = Pace()
        self._estimated = self._true = 1.0
        self._tenants: dict[ServiceTier, dict[TenantId, _Jobs]] = {tier: {} for tier in _TIERS}
        self._places: dict[RequestId, _Place] = {}
        self._tokens = 0.0
        self._standing = _Standing()

    def tokenized(self, estimate: Tokens, tokens: Tokens) -> None:
        """How many tokens a job really has. One of strange texts tells little of others."""
        weight = min(estimate, WEIGHT_MAX)
        of_one = min(max(tokens / estimate, 1 / STRANGE), STRANGE)
        self._estimated = ESTIMATES_KEPT * self._estimated + weight
        self._true = ESTIMATES_KEPT * self._true + weight * of_one

    def scored(self, job: RequestId, tokens: Tokens, run_s: Seconds) -> None:
        """A portion of so many real tokens was answered by a replica, whose batch ran so long."""
        self._pace.scored(tokens, run_s, self._clock.instant())
        place = self._places.get(job)
        if place is not None:
            self._set(place, max(0.0, place.left - tokens * self._estimate_of_a_token))

    @contextmanager
    def hold(self, job: RequestId, claim: Claim, tokens: Tokens, time_s: Seconds) -> Iterator[None]:
        """Count a job of about ``tokens`` as inside while the block runs.

        ``time_s``: that it has left.

        Raises:
            Overloaded: It would most likely not be done in time. Nothing is held.
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
        """Tokens of others that most likely go before a new job of about ``tokens``."""
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
        """The class in which the fair queue will have it, most likely."""
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
    """Of one tenant in one tier, by size: so that ten thousand are looked at as quickly as ten."""

    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0.0
        self._of_size: dict[int, float] = {}

    def add(self, size: int, tokens: float) -> None:
        """So much more is left of those of this size class; or less."""
        self._of_size[size] = self._of_size.get(size, 0.0) + tokens
        self.tokens += tokens

    def before_another(self, tokens: int, size: int) -> float:
        """What goes before a new job of so many."""
        alike = self._of_size.get(size, 0.0)
        return alike + sum(
            min(left, alike + tokens) for each, left in self._of_size.items() if each != size
        )


@dataclass(slots=True)
class _Place:
    """One job inside."""

    jobs: _Jobs
    size: int
    left: float = 0.0

    def __post_init__(self) -> None:
        self.jobs.count += 1


@dataclass(frozen=True, slots=True)
class _Short:
    """A tenant's queue, in one tier, is kept short until then."""

    until: Instant
    for_s: float


class _Standing:
    """Whose queues stood lately."""

    def __init__(self) -> None:
        self._short: dict[tuple[TenantId, ServiceTier], _Short] = {}

    def note(self, claim: Claim, now: Instant) -> None:
        """This one stands, unless that is known."""
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
    """Whether it would be too much again, and not for the first time."""
    return now < short.until + short.for_s
