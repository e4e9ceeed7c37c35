"""The models of one gateway, of which each has a tokenizer here and scorers elsewhere."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from ray.serve.handle import DeploymentHandle

from serve_app.admission.door import Admission
from serve_app.admission.gate import SharedGate
from serve_app.deployments.clients import HandleScorer
from serve_app.dispatch.dispatcher import Dispatcher
from serve_app.domain.clock import Clock
from serve_app.domain.model_card import ModelCard
from serve_app.domain.units import ModelId, Tokens
from serve_app.engine.loading import load_tokenizer
from serve_app.engine.tokenizer import PairTokenizer
from serve_app.engine.tokenizer_process import TokenizerProcess
from serve_app.engine.tokenizer_threads import ThreadedTokenizer
from serve_app.pipeline import ServedModel
from serve_app.settings import SCORER
from serve_app.settings.models import Checkpoint, ModelSettings
from serve_app.telemetry.metrics import Metrics

CLOSED_AFTER_S = 120.0
"""Time after which no job of a removed model is left: more than the longest timeout."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all models of a gateway share."""

    gateway: str
    """Unique id of the gateway, for `serve_app.scaling.backlogs`."""

    gate: SharedGate
    portion_tokens_max: Tokens
    small_threads: Executor
    metrics: Metrics
    clock: Clock


class GatewayModel:
    """One model of a gateway. It keeps its state when settings change that do not concern it."""

    def __init__(self, model: ModelSettings, tokenizer: PairTokenizer, shared: Shared) -> None:
        model_id = ModelId(model.id)
        self.pair_tokens_max = tokenizer.pair_tokens_max
        self.scorer = HandleScorer(
            DeploymentHandle(SCORER, model.application_name), shared.gateway, shared.clock
        )
        self._process = TokenizerProcess(tokenizer)
        self._large_threads = ThreadPoolExecutor(1)  # The process tokenizes one job at a time.
        self.served = ServedModel(
            Admission(shared.gate, tokenizer.pair_tokens_max, shared.metrics, shared.clock),
            ThreadedTokenizer(tokenizer, self._process, shared.small_threads, self._large_threads),
            Dispatcher(
                model_id,
                self.scorer,
                portion_limit(shared.portion_tokens_max, tokenizer.pair_tokens_max),
                shared.metrics,
                shared.clock,
            ),
        )

    def card(self, model: ModelSettings) -> ModelCard:
        """Return the description, as far as it is known without the scorers."""
        return ModelCard(
            id=ModelId(model.id),
            source=model.checkpoint.source,
            revision=model.checkpoint.revision,
            description="",
            precision=model.checkpoint.precision,
            device=None,
            tariff=model.tariff,
            pair_tokens_max=self.pair_tokens_max,
            ready=False,
            activation=None,
            aliases=model.aliases,
        )

    def close(self) -> None:
        self._large_threads.shutdown()
        self._process.close()


Identity = tuple[str, str, Checkpoint]
"""A model whose id, scorers and checkpoint stay the same keeps its state."""


def _identity(model: ModelSettings) -> Identity:
    return model.id, model.application_name, model.checkpoint


class GatewayModels:
    """The models of one gateway, which change while it runs."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._models: dict[Identity, GatewayModel] = {}

    async def load(self, models: Sequence[ModelSettings]) -> Mapping[ModelId, GatewayModel]:
        """Return ``models``, of which new ones are loaded, in their order.

        Models that are missing in ``models`` are closed when their jobs have ended.

        Raises: ModelLoadError; then nothing has changed.
        """
        loaded = {
            _identity(model): self._models.get(_identity(model)) or await self._loaded(model)
            for model in models
        }
        loop = asyncio.get_running_loop()
        for identity in self._models.keys() - loaded.keys():
            loop.call_later(CLOSED_AFTER_S, self._models[identity].close)
        self._models = loaded
        return {ModelId(model.id): loaded[_identity(model)] for model in models}

    async def _loaded(self, model: ModelSettings) -> GatewayModel:
        each = model.checkpoint
        tokenizer = await asyncio.to_thread(
            load_tokenizer, each.source, each.revision, each.pair_tokens_max
        )
        return GatewayModel(model, tokenizer, self._shared)

    def close(self) -> None:
        for model in self._models.values():
            model.close()


def portion_limit(portion_tokens_max: int, pair_tokens_max: int) -> Tokens:
    """Return the most tokens of a portion: the setting, but at least the model's longest pair."""
    return Tokens(max(portion_tokens_max, pair_tokens_max))
