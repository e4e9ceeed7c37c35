"""Deadline admission: decide before any work whether a job can finish in time.

    hold ──(little enough ahead?)──> admitted ──> scored ──> leave

Otherwise, replicas would spend time under overload on jobs that will miss their deadline. A job is
rejected if the work ahead of it takes more than `AHEAD_SHARE_MAX` of its time at the recent
throughput. By the order of the fair queue, the work ahead is

* all of the tenant's jobs in the same size class,
* from each other size class of the tenant, at most the tokens of this class and this job together,
* from each other tenant, at most the tokens of this tenant that are ahead and this job together,
* from higher tiers, at most the share that they have while this tier waits,
* from lower tiers, nothing.

All amounts are in estimated tokens, because jobs are admitted before they are tokenized.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from serve_app.admission.throughput import ThroughputEstimator
from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import ServiceTier
from serve_app.domain.priority import TOKENS_AHEAD, Claim, size_class
from serve_app.domain.units import Seconds, TenantId, Tokens

AHEAD_SHARE_MAX = 0.3
"""Share of a job's time that the work ahead of it may take. The rest is for the job itself, and for
later jobs that overtake it. See `benchmarks.dispatch.deadline`."""

ESTIMATES_KEPT = 0.99
"""Each job reduces the weight of earlier jobs in the correction of estimates by this factor."""

WEIGHT_MAX, ERROR_FACTOR_MAX = 2_048, 4
"""Limits of a job's influence on the correction: its weight in estimated tokens, and the factor by
which its estimate may be wrong."""

_TIERS = tuple(TOKENS_AHEAD)


class DeadlineAdmission:
    """Admitted work of one model, by tier, tenant and size class."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._throughput = ThroughputEstimator()
        self._estimated = self._true = 1.0
        self._tenants: dict[ServiceTier, dict[TenantId, _Jobs]] = {tier: {} for tier in _TIERS}
        self._tokens = 0.0

    def tokenized(self, estimate: Tokens, tokens: Tokens) -> None:
        """Correct later estimates by a job's true token count."""
        weight = min(estimate, WEIGHT_MAX)
        of_one = min(max(tokens / estimate, 1 / ERROR_FACTOR_MAX), ERROR_FACTOR_MAX)
        self._estimated = ESTIMATES_KEPT * self._estimated + weight
        self._true = ESTIMATES_KEPT * self._true + weight * of_one

    def scored(self, job: "AdmittedJob", tokens: Tokens, run_s: Seconds) -> None:
        self._throughput.scored(tokens, run_s, self._clock.instant())
        self._set(job, max(0.0, job.left - tokens * self._estimate_of_a_token))

    @contextmanager
    def hold(self, claim: Claim, tokens: Tokens, time_s: Seconds) -> Iterator["AdmittedJob"]:
        """Count a job of about ``tokens`` as admitted while the block runs.

        Raises: Overloaded if it would most likely miss its deadline, which is in ``time_s``.
        """
        self._check(claim, tokens, time_s)
        jobs = self._tenants[claim.tier].setdefault(claim.tenant, _Jobs())
        jobs.count += 1
        admitted = AdmittedJob(jobs, self._size(tokens))
        self._set(admitted, tokens)
        try:
            yield admitted
        finally:
            self._set(admitted, 0.0)
            jobs.count -= 1
            if not jobs.count:
                del self._tenants[claim.tier][claim.tenant]

    def _check(self, claim: Claim, tokens: Tokens, time_s: Seconds) -> None:
        real_speed = self._throughput.tokens_per_s(self._clock.instant())
        if real_speed is None:
            return
        speed = real_speed * self._estimate_of_a_token
        excess = self.ahead(claim, tokens) - AHEAD_SHARE_MAX * time_s * speed
        if excess > 0:
            raise Overloaded(excess / speed)

    def ahead(self, claim: Claim, tokens: Tokens) -> float:
        own = self._own(claim, tokens)
        others = sum(
            min(jobs.tokens, own + tokens)
            for name, jobs in self._tenants[claim.tier].items()
            if name != claim.tenant
        )
        higher = _TIERS[: _TIERS.index(claim.tier)]
        before = sum(jobs.tokens for tier in higher for jobs in self._tenants[tier].values())
        return own + others + min(before, TOKENS_AHEAD[claim.tier] * (own + others + tokens))

    def _own(self, claim: Claim, tokens: Tokens) -> float:
        jobs = self._tenants[claim.tier].get(claim.tenant)
        return 0.0 if jobs is None else jobs.before_another(tokens, self._size(tokens))

    def _size(self, tokens: Tokens) -> int:
        return size_class(tokens / self._estimate_of_a_token)

    @property
    def _estimate_of_a_token(self) -> float:
        return self._estimated / self._true

    def _set(self, job: "AdmittedJob", left: float) -> None:
        job.jobs.add(job.size, left - job.left)
        self._tokens += left - job.left
        job.left = left
        self._throughput.admitted(self._tokens, self._clock.instant())


class _Jobs:
    def __init__(self) -> None:
        self.count = 0
        self.tokens = 0.0
        self._of_size: dict[int, float] = {}

    def add(self, size: int, tokens: float) -> None:
        """Add ``tokens``, which may be negative, to a size class."""
        self._of_size[size] = self._of_size.get(size, 0.0) + tokens
        self.tokens += tokens

    def before_another(self, tokens: int, size: int) -> float:
        alike = self._of_size.get(size, 0.0)
        return alike + sum(
            min(left, alike + tokens) for each, left in self._of_size.items() if each != size
        )


@dataclass(slots=True)
class AdmittedJob:
    """Only `DeadlineAdmission` uses its fields."""

    jobs: _Jobs
    size: int
    left: float = 0.0
    """Estimated tokens that are not scored yet."""
