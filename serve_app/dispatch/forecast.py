"""Whether a job can be done in its time, before anything of it is begun. No asyncio.

    hold ──(can it be done in its time? does it join a queue that stands?)──> inside

A model that is asked for more than it can do must refuse what is too much, or work is done for
requests that run out of time all the same. Two rules, at the speed of late:

* What goes before a job, and itself, must fit into three fifths of its time. Before it goes what
  the fair queue lets go before it: its tenant's jobs that are no larger, of each other tenant no
  more than its own gets, everything of a higher tier and nothing of a lower one.
* A tenant that is refused again and again has a queue that stands, and all that waits in it makes
  answers late. Until it was not refused for half a minute its queue is kept two seconds long, which
  is enough to lose no speed.

Everything is counted in estimated tokens, as jobs are let in before they are tokenized; the speed
is brought into the same unit. Decides nothing about memory: that is the gate's.
"""

import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.dispatch.fair_queue import Claim
from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import ServiceTier
from serve_app.domain.units import Instant, Seconds, TenantId, Tokens

TIME_SHARE_MAX = 0.6
"""Of a job's time, for what goes before it and itself. Those that come later and go before it take
the rest."""

LITTLE = 0.25
"""Where less than this share of the limit is ahead, a job is let in however long itself takes."""

STANDING_S_MAX = 2.0
CALM_S = 30.0
"""Without a refusal for so long, a tenant may send a burst again."""

BUSY_TOKENS = 16_384
"""With less than this inside, a model's speed says how little it was asked for."""

SPEED_WINDOW_S = 10.0
SPEED_KNOWN_S = 2.0
"""Of being busy: less tells no speed."""

RETRY_AFTER_S_MAX = 60

ESTIMATES_KEPT = 0.99
"""What a job leaves of the weight of those before it in what an estimate is worth."""

_TIERS = (ServiceTier.PRIORITY, ServiceTier.DEFAULT, ServiceTier.FLEX)


class Pace:
    """Tokens/s of one model while it has plenty to do. Time without plenty does not count."""

    def __init__(self) -> None:
        self._busy_s = 0.0  # Until `_since`.
        self._since: Instant | None = None
        self._scored: deque[tuple[float, int]] = deque()

    def inside(self, tokens: int, now: Instant) -> None:
        """So much is inside from now on."""
        self._busy_s = self._busy_until(now)
        self._since = now if tokens >= BUSY_TOKENS else None

    def scored(self, tokens: int, now: Instant) -> None:
        """So much was done."""
        if self._since is not None:
            self._scored.append((self._busy_until(now), tokens))

    def tokens_per_s(self, now: Instant) -> float | None:
        """Of the last ten busy seconds; ``None``: not known, or nothing at all was done."""
        busy_s = self._busy_until(now)
        while self._scored and self._scored[0][0] < busy_s - SPEED_WINDOW_S:
            self._scored.popleft()
        if busy_s < SPEED_KNOWN_S or not self._scored:
            return None
        return sum(tokens for _, tokens in self._scored) / min(busy_s, SPEED_WINDOW_S)

    def _busy_until(self, now: Instant) -> float:
        return self._busy_s + (0.0 if self._since is None else now - self._since)


class Forecast:
    """What is inside of one model's work, by who waits for whom."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pace = Pace()
        self._estimated = self._true = 1.0
        self._tenants: dict[ServiceTier, dict[TenantId, _Jobs]] = {tier: {} for tier in _TIERS}
        self._tokens = 0
        self._refused = _Refused()

    def tokenized(self, estimate: Tokens, tokens: Tokens) -> None:
        """How many tokens a job really has."""
        self._estimated = ESTIMATES_KEPT * self._estimated + estimate
        self._true = ESTIMATES_KEPT * self._true + tokens

    def scored(self, tokens: Tokens) -> None:
        """A portion of so many real tokens was answered by a replica."""
        self._pace.scored(tokens, self._clock.instant())

    @contextmanager
    def hold(self, claim: Claim, tokens: Tokens, timeout_s: Seconds) -> Iterator[None]:
        """Count a job of about ``tokens`` as inside while the block runs.

        Raises:
            Overloaded: It would most likely not be done in time. Nothing is held.
        """
        jobs = self._tenants[claim.tier].get(claim.tenant) or _Jobs()
        self._check(claim, jobs, tokens, timeout_s, self._clock.instant())
        self._tenants[claim.tier][claim.tenant] = jobs
        self._count(jobs, tokens, 1)
        try:
            yield
        finally:
            self._count(jobs, tokens, -1)
            if not jobs.count:
                self._tenants[claim.tier].pop(claim.tenant, None)

    def _check(
        self, claim: Claim, jobs: "_Jobs", tokens: Tokens, timeout_s: Seconds, now: Instant
    ) -> None:
        real_speed = self._pace.tokens_per_s(now)
        if real_speed is None:
            return
        speed = real_speed * self._estimated / self._true
        ahead = self.ahead(claim, tokens)
        limit = speed * timeout_s * TIME_SHARE_MAX
        excess = ahead + tokens - limit if ahead > LITTLE * limit else 0.0
        if excess > 0 or self._refused.lately(claim, now):
            excess = max(excess, jobs.no_larger_than(tokens) - STANDING_S_MAX * speed)
        if excess > 0:
            self._refused.note(claim, now)
            raise Overloaded(max(1, min(RETRY_AFTER_S_MAX, math.ceil(excess / speed))))

    def ahead(self, claim: Claim, tokens: Tokens) -> float:
        """Tokens of others that most likely go before a new job of about ``tokens``."""
        higher = _TIERS[: _TIERS.index(claim.tier)]
        before = sum(jobs.tokens for tier in higher for jobs in self._tenants[tier].values())
        tenants = self._tenants[claim.tier]
        own = tenants[claim.tenant].no_larger_than(tokens) if claim.tenant in tenants else 0
        others = (jobs.tokens for name, jobs in tenants.items() if name != claim.tenant)
        return before + own + sum(min(each, own + tokens) for each in others)

    def _count(self, jobs: "_Jobs", tokens: int, sign: int) -> None:
        jobs.add(tokens, sign)
        self._tokens += sign * tokens
        self._pace.inside(self._tokens, self._clock.instant())


class _Jobs:
    """Of one tenant in one tier, by powers of two of their size: so that ten thousand small jobs
    are looked at as quickly as ten."""

    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0
        self._classes: dict[int, tuple[int, int]] = {}

    def add(self, tokens: int, sign: int) -> None:
        size = tokens.bit_length()
        count, total = self._classes.get(size, (0, 0))
        self._classes[size] = (count + sign, total + sign * tokens)
        self.count += sign
        self.tokens += sign * tokens

    def no_larger_than(self, tokens: int) -> int:
        """Tokens of the jobs that are no larger; of those of the same class as if they were."""
        size = tokens.bit_length()
        return sum(total for each, (_, total) in self._classes.items() if each <= size)


class _Refused:
    """When each tenant was refused last, in each tier; forgotten after `CALM_S`."""

    def __init__(self) -> None:
        self._at: OrderedDict[tuple[TenantId, ServiceTier], Instant] = OrderedDict()

    def note(self, claim: Claim, now: Instant) -> None:
        self._at[claim.tenant, claim.tier] = now
        self._at.move_to_end((claim.tenant, claim.tier))

    def lately(self, claim: Claim, now: Instant) -> bool:
        while self._at and next(iter(self._at.values())) < now - CALM_S:
            self._at.popitem(last=False)
        return (claim.tenant, claim.tier) in self._at
