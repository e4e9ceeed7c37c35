"""The HTTP application with fake ports that are deterministic and observable."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import httpx
import numpy as np
import numpy.typing as npt
from starlette.applications import Starlette

from serve_app.access.authenticator import check_scopes
from serve_app.admission.door import Admission
from serve_app.admission.gate import SharedGate
from serve_app.admission.places import CHANGES, PLACES, REPORTS, Places
from serve_app.admission.refusals import RefusalBudget
from serve_app.domain.errors import LedgerUnavailable, Unauthenticated
from serve_app.domain.job import Job
from serve_app.domain.load import ModelLoad, ServiceLoad
from serve_app.domain.model import INPUT_ID_BYTES, Caller, JobScores, Overflow, ServiceTier
from serve_app.domain.model_card import ModelCard, Prices, Readiness, Tariff
from serve_app.domain.model_names import ModelNames
from serve_app.domain.tokenized import Pair, TokenizedJob, Window
from serve_app.domain.units import (
    Credits,
    KeyId,
    ModelId,
    RequestId,
    Revision,
    Seconds,
    TenantId,
    Tokens,
)
from serve_app.engine.overflow import divide, refuse_truncated, windows_at_most
from serve_app.engine.text_prefix import TextEncoder
from serve_app.engine.tokenizer_threads import ThreadedTokenizer
from serve_app.http.app import build_app
from serve_app.http.service import Service, T
from serve_app.ledger.db.engines import Connection
from serve_app.pipeline import Pipeline
from serve_app.ports import JobScorer, PortionReport, Tokenizer, Usage
from serve_app.protocols.limits import Limits
from serve_app.served_model import ServedModel, ServedRevision
from serve_app.telemetry.metrics import Metrics
from serve_app.telemetry.recent import RecentCodes
from serve_app.telemetry.traces import Collector, NoCollector, Traces
from testkit.tokenized import pairs_in
from tests.support.fakes import FakeClock, FakeLedger, RecordingSink

MINI = ModelId("mini")
BIG = ModelId("acme/big")
BIG_ALIAS = "acme/big-reranker"
PAIR_TOKENS_MAX = 12

LIMITS = Limits(
    body_bytes_max=20_000,
    documents_per_request_max=150,
    query_characters_max=60,
    request_timeout_s=Seconds(5),
    request_timeout_s_max=Seconds(10),
    body_timeout_s=Seconds(5),
)

BODY_BYTES_HELD_MAX = 10_000_000

READY = Readiness(ready=True, ledger=True, models=((MINI, True), (BIG, False)))

# Fake credentials, which are valid nowhere else.
KEYS = {
    "rk-good": Caller(TenantId("acme"), KeyId("k1"), frozenset({"rerank"}), None),
    "rk-big-only": Caller(TenantId("acme"), KeyId("k2"), frozenset({"rerank"}), frozenset({BIG})),
    "rk-other-key": Caller(TenantId("acme"), KeyId("k5"), frozenset({"rerank"}), None),
    "rk-other-tenant": Caller(TenantId("other"), KeyId("k4"), frozenset({"rerank"}), None),
    "rk-admin": Caller(TenantId("acme"), KeyId("k3"), frozenset({"admin"}), None),
}
LEDGER_DOWN_KEY = "rk-while-the-ledger-is-down"


class FakeAccess:
    async def authenticate(self, api_keys: Sequence[str], *scopes: str) -> Caller:
        if LEDGER_DOWN_KEY in api_keys:
            raise LedgerUnavailable("connect to 10.0.0.7 refused")
        for api_key in api_keys:
            if api_key in KEYS:
                check_scopes(KEYS[api_key], scopes)
                return KEYS[api_key]
        raise Unauthenticated


class EightEach:
    def price(self, model: ModelId, usage: Usage, tier: ServiceTier) -> Credits:
        return Credits((4 if tier is ServiceTier.FLEX else 8) * usage.documents)


class WordEncoder(TextEncoder):
    """Has one token per word, and no backend."""

    def __init__(self) -> None:
        pass

    def count(self, text: str) -> int:
        return len(text.split())

    def offsets(self, text: str, tokens_max: int) -> npt.NDArray[np.int32]:
        words = [word.span() for word in re.finditer(r"\S+", text)]
        return np.array(words, np.int32).reshape(-1, 2)


class WordTokenizer:
    """Counts one token per word, and three special tokens per pair."""

    pair_tokens_max = Tokens(PAIR_TOKENS_MAX)
    _encoder = WordEncoder()

    def check_queries(self, job: Job) -> Usage:
        documents = len(job.pairs)
        if job.overflow is Overflow.CHUNK:
            documents = windows_at_most(job, self._rooms(job))
        return Usage(documents, Tokens(documents * PAIR_TOKENS_MAX))

    def tokenize(self, job: Job) -> TokenizedJob:
        if job.overflow is not Overflow.CHUNK:
            pairs = self._pairs(job)
            if job.overflow is Overflow.ERROR:
                refuse_truncated(job, pairs, self._rooms(job), self._encoder)
            return TokenizedJob.of(pairs)
        divided, windows = divide(job, self._rooms(job), self._encoder)
        pairs = self._pairs(divided)
        return TokenizedJob.of([*map(_in_window, pairs, windows)])

    def _rooms(self, job: Job) -> dict[str, int]:
        return {query: PAIR_TOKENS_MAX - 3 - len(query.split()) for query in job.queries}

    def _pairs(self, job: Job) -> tuple[Pair, ...]:
        return tuple(
            self._pair(index, pair.query, pair.document, job.document_tokens_max)
            for index, pair in enumerate(job.pairs)
        )

    def _pair(self, index: int, query: str, text: str, document_tokens_max: int | None) -> Pair:
        query_tokens = len(query.split()) + 2
        words = len(text.split())
        tokens = query_tokens + words + 1
        read = words if document_tokens_max is None else min(words, document_tokens_max)
        kept = min(query_tokens + read + 1, PAIR_TOKENS_MAX)
        ids = bytes(kept * INPUT_ID_BYTES)
        return Pair(index, ids, Tokens(query_tokens), truncated=kept < tokens)


def _in_window(pair: Pair, window: Window) -> Pair:
    return replace(pair, window=window, truncated=pair.truncated or window.truncated)


class WordScorer:
    """Scores a document or window by the number of query words in it."""

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        shared = (
            len(set(job.pairs[pair.document].query.lower().split()) & _words(job, pair))
            for pair in pairs_in(tokenized)
        )
        logits = tuple(2.0 * count - 3 for count in shared)
        return JobScores(logits, queue_wait_s=Seconds(0.0125), run_s=Seconds(0.25))


def _words(job: Job, pair: Pair) -> set[str]:
    text = job.pairs[pair.document].document
    if pair.window is not None:
        text = text[pair.window.start : pair.window.end]
    return set(text.lower().split())


class FakeCatalogue:
    def __init__(self, readiness: Readiness) -> None:
        self.state = readiness

    async def cards(self) -> tuple[ModelCard, ...]:
        mini = ModelCard(
            id=MINI,
            source="embedded",
            revision=None,
            description="Counts words",
            precision="float32",
            device="cpu",
            tariff=Tariff(Prices(8, flex=4, priority=16)),
            pair_tokens_max=PAIR_TOKENS_MAX,
            ready=True,
            activation="sigmoid",
            tokens_per_s=12_500.0,
            facts={
                "license": "mit",
                "languages": ["en"],
                "quality": [
                    {
                        "dataset": "words",
                        "metric": "NDCG@10",
                        "value": 0.5,
                        "origin": "published",
                    }
                ],
            },
        )
        big = ModelCard(
            id=BIG,
            source="acme/big-reranker",
            revision="v1",
            description="Counts more words",
            precision="auto",
            device=None,
            tariff=Tariff(
                Prices(80, flex=40, priority=160), Prices(50_000, flex=25_000, priority=100_000)
            ),
            pair_tokens_max=8_192,
            ready=False,
            activation=None,
            aliases=(BIG_ALIAS,),
        )
        return mini, big

    async def readiness(self) -> Readiness:
        return self.state


class FakeMonitor:
    async def load(self) -> ServiceLoad:
        mini = ModelLoad(MINI, {"RUNNING": 2}, Tokens(300), Tokens(200), 1_000.0)
        big = ModelLoad(BIG, None, Tokens(0), Tokens(0), None)
        return ServiceLoad("gateway-1", {"RUNNING": 1}, (mini, big))


class ClosedOffice:
    """For tests that do not use accounts."""

    async def read(self, query: Callable[[Connection], T]) -> T:
        raise LedgerUnavailable("the office is closed")

    async def write(self, change: Callable[[Connection], T]) -> T:
        raise LedgerUnavailable("the office is closed")


def _numbered() -> Callable[[], RequestId]:
    numbers = iter(range(1, 1_000_000))
    return lambda: RequestId(f"rr_{next(numbers)}")


@dataclass
class FakeApp:
    """The application with fakes for its dependencies; ``close`` ends its threads."""

    scorer: JobScorer = field(default_factory=WordScorer)
    tokenizer: Tokenizer = field(default_factory=WordTokenizer)
    granted: int = 1_000_000
    limits: Limits = LIMITS
    readiness: Readiness = READY
    places: int = PLACES
    cors_allowed_origins: Sequence[str] = ()
    clock: FakeClock = field(default_factory=FakeClock)
    collector: Collector = field(default_factory=NoCollector)
    with_texts: bool = False

    def __post_init__(self) -> None:
        self.ledger = FakeLedger(self.granted)
        self._sink = RecordingSink()
        self.lines: list[Mapping[str, object]] = []
        self.threads = ThreadPoolExecutor(1)
        clock = self.clock
        self.gate = SharedGate(4_000_000)
        self.body_gate = SharedGate(BODY_BYTES_HELD_MAX)
        metrics = Metrics(self._sink, clock)
        tokenizer = ThreadedTokenizer(self.tokenizer, self.tokenizer, self.threads, self.threads)
        admission = Admission(self.gate, self.tokenizer.pair_tokens_max, metrics, clock)
        revision = ServedRevision(Revision("live"), admission, tokenizer, self.scorer)
        served = ServedModel(revision)
        self.service = Service(
            pipeline=Pipeline(
                ledger=self.ledger,
                pricing=EightEach(),
                models={MINI: served, BIG: served},
                metrics=metrics,
                clock=clock,
            ),
            access=FakeAccess(),
            catalogue=FakeCatalogue(self.readiness),
            office=ClosedOffice(),
            monitor=FakeMonitor(),
            recent_codes=RecentCodes(clock),
            clock=clock,
            metrics=metrics,
            limits=self.limits,
            body_gate=self.body_gate,
            places=Places(clock, self.places),
            report_places=Places(clock, REPORTS),
            change_places=Places(clock, CHANGES),
            refusal_budget=RefusalBudget(clock),
            parsers=self.threads,
            model_names=ModelNames({MINI: (), BIG: (BIG_ALIAS,)}),
            free_credit=Credits(0),
            log=self.lines.append,
            traces=Traces(self.collector, clock, with_texts=self.with_texts),
            new_request_id=_numbered(),
            cors_allowed_origins=self.cors_allowed_origins,
        )
        self.asgi: Starlette = build_app(self.service)

    def close(self) -> None:
        self.threads.shutdown()

    @property
    def values(self) -> dict[str, list[tuple[float, dict[str, str]]]]:
        return self._sink.values

    def total(self, metric: str) -> float:
        return sum(value for value, _ in self.values.get(metric, []))

    def codes(self) -> list[str]:
        return [labels["code"] for _, labels in self.values.get("rerank_requests", [])]

    def send(
        self,
        method: str,
        path: str,
        *,
        key: str | None = "rk-good",
        headers: Mapping[str, str] | None = None,
        body: object = None,
    ) -> httpx.Response:
        """Send one request over ASGI. A ``body`` that is not bytes is sent as JSON."""
        sent = dict(headers or {})
        if key is not None:
            sent["authorization"] = f"Bearer {key}"
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        if body is None:
            content = {}

        async def exchange() -> httpx.Response:
            transport = httpx.ASGITransport(self.asgi)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, headers=sent, **content)

        return asyncio.run(exchange())

    def rerank(self, **fields: object) -> httpx.Response:
        """Send a valid request, changed by ``fields``; a field set to ``...`` is omitted."""
        body = {"query": "blue sky", "documents": ["a blue sky", "grey", "the sky"]} | fields
        return self.send("POST", "/v1/rerank", body={k: v for k, v in body.items() if v is not ...})
