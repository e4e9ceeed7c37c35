"""Score answered jobs once more with a canary, in the background, and compare both rankings.

Shadows are never charged, and no request waits for them or sees their failures. They use only spare
capacity: few run at once, in the lowest tier, and a gateway that is busy starts none.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from serve_app.admission.gate import SharedGate
from serve_app.domain.canary import Comparison, is_chosen, kendall_tau, overlap_at_10
from serve_app.domain.clock import Clock
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, JobScores, ServiceTier
from serve_app.domain.ranking import ranked
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import Instant, Revision, Seconds, Tokens
from serve_app.served_model import ServedRevision
from serve_app.telemetry.logs import failure_fields, get_logger
from serve_app.telemetry.metrics import SHADOWS, Metrics
from serve_app.telemetry.traces import untraced

logger = get_logger(__name__)

RUNNING_MAX = 2
TIMEOUT_S = Seconds(30.0)

Store = Callable[[Comparison], Awaitable[None]]


class Shadows:
    """The shadows of all models of one gateway. Not thread-safe."""

    def __init__(self, gate: SharedGate, store: Store, metrics: Metrics, clock: Clock) -> None:
        self._gate = gate
        self.store = store
        self.metrics = metrics
        self.clock = clock
        self._running: set[asyncio.Task[None]] = set()
        self._logged: set[tuple[Revision, type[BaseException]]] = set()

    @property
    def have_room(self) -> bool:
        return len(self._running) < RUNNING_MAX and not self._gate.is_half_full

    def run(self, canary: Revision, shadow: Awaitable[str]) -> None:
        """Run ``shadow``, which returns its result for the metric."""
        with untraced():  # The request ends before its shadow.
            task = asyncio.create_task(self._run(canary, shadow))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, canary: Revision, shadow: Awaitable[str]) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                result = await shadow
        except Exception as error:  # noqa: BLE001 - a failed shadow must affect nothing else
            result = "failed"
            if (canary, type(error)) not in self._logged:
                self._logged.add((canary, type(error)))
                logger.warning("shadow_failed", extra={"canary": canary} | failure_fields(error))
        self.metrics.record(SHADOWS, result=result)


@dataclass(frozen=True, slots=True)
class CanaryShadow:
    """Implements `serve_app.ports.Shadow` with one canary."""

    live: Revision
    canary: ServedRevision
    backlog_tokens: Callable[[], Tokens]
    """Tokens that wait for the canary's scorers."""

    share: float
    """Share of the answered requests, 0 to 1."""

    shadows: Shadows

    def offer(self, caller: Caller, job: Job, tokenized: TokenizedJob, scores: JobScores) -> None:
        if not is_chosen(self.share, job.request_id):
            return
        if self.shadows.have_room and self.backlog_tokens() == 0:
            self.shadows.run(self.canary.name, self._compared(caller, job, tokenized, scores))
        else:
            self.shadows.metrics.record(SHADOWS, result="skipped")

    async def _compared(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, scores: JobScores
    ) -> str:
        if len(job.queries) > 1:
            return "skipped"  # Pairs with different queries have no common ranking.
        again = replace(
            job,
            service_tier=ServiceTier.FLEX,
            timeout_s=TIMEOUT_S,
            deadline=Instant(self.shadows.clock.instant() + TIMEOUT_S),
            idempotency=None,
        )
        # Not small, so that it is tokenized in the canary's own process.
        await self.canary.tokenizer.check_queries(again, small=False)
        ours = await self.canary.tokenizer.tokenize(again, small=False)
        found = await self.canary.scorer.score(caller, again, ours, lambda *_: None)
        both = (tokenized, scores), (ours, found)
        await self.shadows.store(await asyncio.to_thread(self._comparison, job, *both))
        return "compared"

    def _comparison(
        self,
        job: Job,
        live: tuple[TokenizedJob, JobScores],
        canary: tuple[TokenizedJob, JobScores],
    ) -> Comparison:
        rankings = [
            [each.index for each in ranked(tokenized, scores.logits, None)]
            for tokenized, scores in (live, canary)
        ]
        return Comparison(
            request_id=job.request_id,
            model=job.model,
            live=self.live,
            canary=self.canary.name,
            compared_at=self.shadows.clock.moment(),
            documents=len(job.pairs),
            overlap_at_10=overlap_at_10(*rankings),
            kendall_tau=kendall_tau(*rankings),
            live_run_s=live[1].run_s,
            canary_run_s=canary[1].run_s,
            live_tokens=live[0].tokens,
            canary_tokens=canary[0].tokens,
        )
