"""Admission of jobs to the models of a gateway.

    admit ──(room for the work? enough time?)──> ticket ──> tokenized, scored ──> leave

Refusals precede all durable or slow steps.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from serve_app.admission.deadline import AdmittedJob, DeadlineAdmission
from serve_app.admission.estimate import estimate_tokens, is_small
from serve_app.admission.gate import SharedGate
from serve_app.domain.clock import Clock
from serve_app.domain.job import Job
from serve_app.domain.model import Caller
from serve_app.domain.priority import Claim
from serve_app.domain.units import Seconds, Tokens
from serve_app.telemetry.metrics import GATE_TOKENS, Metrics
from serve_app.telemetry.traces import span


@dataclass(frozen=True, slots=True)
class Ticket:
    """An admitted job. Its holder reports the job's progress."""

    small: bool

    _estimate: Tokens
    _deadlines: DeadlineAdmission
    _admitted: AdmittedJob

    def tokenized(self, tokens: Tokens) -> None:
        self._deadlines.tokenized(self._estimate, tokens)

    def scored(self, tokens: Tokens, run_s: Seconds) -> None:
        self._deadlines.scored(self._admitted, tokens, run_s)


class Admission:
    """Admits jobs to one model of a gateway. Not thread-safe."""

    def __init__(
        self, gate: SharedGate, pair_tokens_max: int, metrics: Metrics, clock: Clock
    ) -> None:
        """``pair_tokens_max`` is the longest pair of this model; all models share the ``gate``."""
        self._gate = gate
        self._pair_tokens_max = pair_tokens_max
        self._deadlines = DeadlineAdmission(clock)
        self._metrics = metrics
        self._clock = clock

    @contextmanager
    def admit(self, caller: Caller, job: Job) -> Iterator[Ticket]:
        """Hold the job's place while the block runs. Raises: Overloaded."""
        tokens = estimate_tokens(job, self._pair_tokens_max)
        left_s = Seconds(max(0.0, job.deadline - self._clock.instant()))
        try:
            with ExitStack() as held:
                with span("admit"):
                    claim = Claim.of(caller, job)
                    admitted = held.enter_context(self._deadlines.hold(claim, tokens, left_s))
                    held.enter_context(self._gate.admit(caller.tenant, tokens))
                self._metrics.record(GATE_TOKENS, self._gate.amount)
                yield Ticket(is_small(job, tokens), tokens, self._deadlines, admitted)
        finally:
            self._metrics.record(GATE_TOKENS, self._gate.amount)
