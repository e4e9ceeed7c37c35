"""The HTTP application with the embedded model in this process; other ports are fakes."""

import asyncio
import time
from dataclasses import replace
from typing import Any

from serve_app.dispatch.dispatcher import Dispatcher
from serve_app.domain.model import EMBEDDED, Portion, PortionScores
from serve_app.domain.model_card import ReplicaInfo
from serve_app.domain.units import Instant, Revision, Seconds, Tokens
from serve_app.engine.limits import EngineLimits
from serve_app.engine.loading import load_engine, load_tokenizer
from serve_app.ports import Engine
from tests.support.app import LIMITS, MINI, FakeApp
from tests.support.fakes import FakeClock, some_metrics

PORTION_TOKENS = 600
"""Small portions, so that a job is scored in several parts."""


class EngineScorer:
    """A replica in this process."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def score(
        self, portion: Portion, deadline: Instant, backlog_tokens: Tokens
    ) -> PortionScores:
        started = time.perf_counter()
        (logits,) = await asyncio.to_thread(self._engine.score, [portion])
        run_s = Seconds(time.perf_counter() - started)
        return PortionScores(tuple(logits), "r", Seconds(0), run_s, 0.0)

    async def describe(self) -> ReplicaInfo:
        engine = self._engine
        return ReplicaInfo("r", engine.device, engine.precision, "in this process", "identity")


def embedded_app(**options: Any) -> FakeApp:
    """Return an application with ``options`` for `FakeApp`. The caller closes it."""
    engine = load_engine(EMBEDDED, None, "float32", EngineLimits(batch_tokens_max=8_192))
    scorer = Dispatcher(
        MINI,
        Revision("live"),
        EngineScorer(engine),
        Tokens(PORTION_TOKENS),
        some_metrics(),
        FakeClock(),
    )
    limits = replace(
        LIMITS,
        body_bytes_max=10_000_000,
        query_characters_max=32_768,
        request_timeout_s=Seconds(60),  # On a busy machine, a model of real size takes its time.
        request_timeout_s_max=Seconds(60),
    )
    return FakeApp(
        scorer=scorer, tokenizer=load_tokenizer(EMBEDDED), **({"limits": limits} | options)
    )
