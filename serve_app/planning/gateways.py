"""Simulated gateways and the ledger's database.

Admission, portions, the fair queue, the in-flight window and the choice of a scorer are the
service's own.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import count

import simpy

from serve_app.admission.deadline import AdmittedJob, DeadlineAdmission
from serve_app.dispatch.inflight_window import Answered, InflightWindow
from serve_app.dispatch.portion_queue import PortionQueue
from serve_app.dispatch.portions import cut
from serve_app.dispatch.replica_load import ReplicaLoad
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import INPUT_ID_BYTES, PortionScores, ServiceTier
from serve_app.domain.priority import Claim
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import Instant, Moment, RequestId, Seconds, TenantId, Tokens
from serve_app.planning.arrivals import Arrival
from serve_app.planning.profiles import Database, Gateway
from serve_app.planning.scorers import Scorers, Sent, SimulatedScorer, Steps

PORTION_TOKENS_MAX = Tokens(16_384)
TIMEOUT_S = Seconds(30)
"""The service's defaults."""

GROUP_WRITES_MAX = 256

VISITS = (3, 2, 2, 1)
"""Turns of a request on the event loop before its reservation, scoring, charge and answer. Each
takes an equal part of the CPU time."""

CLAIM = Claim(TenantId("traffic"), 1, ServiceTier.DEFAULT)

_numbers = count(1)


class SimulatedClock:
    """`serve_app.domain.clock.Clock` of a simulation."""

    def __init__(self, env: simpy.Environment) -> None:
        self._env = env

    def instant(self) -> Instant:
        return Instant(self._env.now)

    def moment(self) -> Moment:
        return Moment(round(1_000 * self._env.now))


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that left the service."""

    arrived_s: float
    ended_s: float
    documents: int
    scored: bool
    """False for a request that was refused or late."""

    @property
    def seconds(self) -> float:
        return self.ended_s - self.arrived_s


@dataclass(frozen=True, slots=True)
class _Portion:
    job: "_Job"
    tokens: Tokens


@dataclass(slots=True, eq=False)
class _Job:
    admitted: AdmittedJob
    portions: int
    done: simpy.Event


class LedgerWriter:
    """The ledger in one gateway: one transaction at a time, each with all waiting writes."""

    def __init__(self, env: simpy.Environment, database: Database, cores: simpy.Resource) -> None:
        self._env = env
        self._database = database
        self._cores = cores
        self._waiting: list[simpy.Event] = []
        self._runs = False
        self.busy_s = 0.0
        """Time of the writes on the database's cores."""

    def write(self) -> simpy.Event:
        committed = self._env.event()
        self._waiting.append(committed)
        if not self._runs:
            self._runs = True
            self._env.process(self._run())
        return committed

    def _run(self) -> Steps:
        while self._waiting:
            group = self._waiting[:GROUP_WRITES_MAX]
            del self._waiting[:GROUP_WRITES_MAX]
            work_s = len(group) * self._database.write_s
            with self._cores.request() as core:
                yield core
                yield self._env.timeout(work_s)
            self.busy_s += work_s
            yield self._env.timeout(self._database.transaction_s)
            for committed in group:
                committed.succeed()
        self._runs = False


class SimulatedGateway:
    """One gateway with one core."""

    def __init__(
        self,
        env: simpy.Environment,
        profile: Gateway,
        writer: LedgerWriter,
        scorers: Scorers,
        answered: Callable[[Answer], None],
    ) -> None:
        self._env = env
        self._profile = profile
        self.writer = writer
        self._scorers = scorers
        self._answered = answered
        self._free_at = self._work_s = 0.0
        self._admission = DeadlineAdmission(SimulatedClock(env))
        self._portions: PortionQueue[_Portion] = PortionQueue(InflightWindow(PORTION_TOKENS_MAX))
        self._loads: defaultdict[SimulatedScorer, ReplicaLoad] = defaultdict(ReplicaLoad)
        self.requests = 0

    @property
    def busy_s(self) -> float:
        return self._work_s - max(0.0, self._free_at - self._env.now)

    @property
    def backlog_tokens(self) -> Tokens:
        return self._portions.queued_tokens

    def serve(self, arrival: Arrival) -> Steps:
        self.requests += 1
        documents = len(arrival.lengths)
        visit_s = self._profile.cpu_s(documents) / sum(VISITS)
        to_reserve, to_score, to_charge, to_answer = VISITS
        yield self._env.timeout(self._profile.transit_s / 2)
        yield from self._compute(to_reserve, visit_s)
        try:
            with self._admission.hold(CLAIM, Tokens(arrival.tokens), TIMEOUT_S) as admitted:
                yield self.writer.write()
                yield from self._compute(to_score, visit_s)
                yield self._score(arrival.lengths, admitted)
        except Overloaded:
            scored = False
        else:
            yield from self._compute(to_charge, visit_s)
            yield self.writer.write()
            yield from self._compute(to_answer, visit_s)
            scored = self._env.now - arrival.at_s <= TIMEOUT_S
        yield self._env.timeout(self._profile.transit_s / 2)
        self.requests -= 1
        self._answered(Answer(arrival.at_s, self._env.now, documents, scored))

    def _compute(self, visits: int, seconds: float) -> Steps:
        """Use the core for each visit, after earlier requests."""
        for _ in range(visits):
            self._free_at = max(self._free_at, self._env.now) + seconds
            self._work_s += seconds
            yield self._env.timeout(self._free_at - self._env.now)

    def _score(self, lengths: tuple[int, ...], admitted: AdmittedJob) -> simpy.Event:
        costs = _costs(lengths, self._portions.portion_tokens)
        job = _Job(admitted, len(costs), self._env.event())
        name = RequestId(str(next(_numbers)))
        self._portions.add(name, CLAIM, [_Portion(job, tokens) for tokens in costs])
        self._advance()
        return job.done

    def _advance(self) -> None:
        while (portion := self._portions.take(Instant(self._env.now))) is not None:
            self._send(portion)

    def _send(self, portion: _Portion) -> None:
        scorer = min(self._scorers.running, key=lambda each: self._loads[each].rank)
        load = self._loads[scorer]
        load.add(portion.tokens, next(_numbers))
        scorer.portions += 1

        def scored(scores: PortionScores) -> None:
            self._later(lambda: back(scores))

        def back(scores: PortionScores) -> None:
            load.remove(portion.tokens)
            scorer.portions -= 1
            self._scored(portion, scores)

        self._later(lambda: scorer.receive(Sent(portion.tokens, scored)))

    def _scored(self, portion: _Portion, scores: PortionScores) -> None:
        self._portions.leave(portion.tokens)
        answer = Answered(scores, portion.tokens, others_wait=len(self._portions) > 0)
        self._portions.answered(answer, Instant(self._env.now))
        job = portion.job
        self._admission.scored(job.admitted, portion.tokens, scores.run_s)
        job.portions -= 1
        if job.portions == 0:
            job.done.succeed()
        self._advance()

    def _later(self, act: Callable[[], None]) -> None:
        """Call ``act`` after half of the time of a scorer's call."""
        timeout = self._env.timeout(self._profile.call_s / 2)
        timeout.callbacks.append(lambda _: act())


@lru_cache(maxsize=4_096)
def _costs(lengths: tuple[int, ...], tokens_max: Tokens) -> tuple[Tokens, ...]:
    ids = bytes(INPUT_ID_BYTES * sum(lengths))
    job = TokenizedJob(ids, lengths, lengths, (False,) * len(lengths))
    return tuple(each.tokens for each in cut(RequestId(""), job, tokens_max))
