"""The models of one gateway. Each revision has a tokenizer here, and scorers in other processes."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from serve_app.admission.door import Admission
from serve_app.admission.gate import SharedGate
from serve_app.deployments.cards import read_card
from serve_app.deployments.clients import HandleScorer
from serve_app.deployments.least_loaded import scorer_handle
from serve_app.dispatch.dispatcher import Dispatcher
from serve_app.domain.clock import Clock
from serve_app.domain.model_card import ModelCard
from serve_app.domain.units import ModelId, Revision, Tokens
from serve_app.engine.loading import load_tokenizer
from serve_app.engine.model_files import stated_facts
from serve_app.engine.tokenizer import PairTokenizer
from serve_app.engine.tokenizer_process import TokenizerProcess
from serve_app.engine.tokenizer_threads import ThreadedTokenizer
from serve_app.served_model import ServedModel, ServedRevision
from serve_app.settings.live import UNUSED_AFTER_S
from serve_app.settings.models import Checkpoint, ModelSettings
from serve_app.shadow import CanaryShadow, Shadows
from serve_app.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Shared:
    """What all models of a gateway share."""

    exports: Path
    """See `serve_app.engine.export_cache`."""

    gateway: str
    """Unique id of the gateway."""

    gate: SharedGate
    portion_tokens_max: Tokens
    small_threads: Executor
    shadows: Shadows
    metrics: Metrics
    clock: Clock


@dataclass(frozen=True, slots=True)
class LoadedFiles:
    """What a gateway needs from a model's files."""

    tokenizer: PairTokenizer
    facts: Mapping[str, object]
    """See `serve_app.engine.model_files.stated_facts`."""

    @classmethod
    def of(cls, each: Checkpoint, exports: Path) -> Self:
        """Raises: ModelLoadError."""
        tokenizer = load_tokenizer(each.source, each.revision, each.pair_tokens_max, exports)
        return cls(tokenizer, stated_facts(each.source, each.revision))


class GatewayRevision:
    """One revision of a model."""

    def __init__(self, model: ModelSettings, files: LoadedFiles, shared: Shared) -> None:
        tokenizer = files.tokenizer
        self.facts = files.facts
        self.pair_tokens_max = tokenizer.pair_tokens_max
        self.scorer = HandleScorer(
            scorer_handle(model.application_name), shared.gateway, shared.clock
        )
        self.dispatcher = Dispatcher(
            ModelId(model.id),
            model.revision,
            self.scorer,
            portion_limit(shared.portion_tokens_max, tokenizer.pair_tokens_max),
            shared.metrics,
            shared.clock,
        )
        self._process = TokenizerProcess(tokenizer)
        self._large_threads = ThreadPoolExecutor(1)  # The process tokenizes one job at a time.
        self.served = ServedRevision(
            model.revision,
            Admission(shared.gate, tokenizer.pair_tokens_max, shared.metrics, shared.clock),
            ThreadedTokenizer(tokenizer, self._process, shared.small_threads, self._large_threads),
            self.dispatcher,
        )
        self._shadows = shared.shadows

    def shadow_of(self, live: Revision, share: float) -> CanaryShadow:
        return CanaryShadow(
            live, self.served, lambda: self.dispatcher.backlog_tokens, share, self._shadows
        )

    def close(self) -> None:
        self._large_threads.shutdown()
        self._process.close()


@dataclass(frozen=True, slots=True)
class GatewayModel:
    """A model with its current settings."""

    settings: ModelSettings
    live: GatewayRevision
    canary: GatewayRevision | None
    card_facts: Mapping[str, object]
    """See `read_card`."""

    @property
    def served(self) -> ServedModel:
        live, canary = self.live.served, self.settings.canary
        if canary is None or self.canary is None:
            return ServedModel(live)
        if canary.shadow_share:
            live = replace(live, shadow=self.canary.shadow_of(live.name, canary.shadow_share))
        return ServedModel(live, self.canary.served, canary.share)

    @property
    def card(self) -> ModelCard:
        """What is known without the scorers."""
        model = self.settings
        return ModelCard(
            id=ModelId(model.id),
            source=model.checkpoint.source,
            revision=model.checkpoint.revision,
            description="",
            precision=model.checkpoint.precision,
            device=None,
            tariff=model.tariff,
            pair_tokens_max=self.live.pair_tokens_max,
            ready=False,
            activation=None,
            aliases=model.aliases,
            facts={**self.live.facts, **self.card_facts},
        )


Identity = tuple[str, str, Checkpoint]
"""Model, application and checkpoint. A revision with the same identity keeps its state, even when
it is promoted."""


def _identity(model: ModelSettings) -> Identity:
    return model.id, model.application_name, model.checkpoint


class GatewayModels:
    """A gateway's models, which change while it runs."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._revisions: dict[Identity, GatewayRevision] = {}

    async def load(self, models: Sequence[ModelSettings]) -> Mapping[ModelId, GatewayModel]:
        """Load new revisions, and return all ``models`` in their order.

        Revisions that are not in ``models`` are closed after their last jobs have ended.

        Raises: ModelLoadError; then nothing has changed.
        """
        cards = {model.id: await asyncio.to_thread(read_card, model) for model in models}
        loaded = {
            _identity(each): self._revisions.get(_identity(each)) or await self._loaded(each)
            for model in models
            for each in model.revisions
        }
        loop = asyncio.get_running_loop()
        for identity in self._revisions.keys() - loaded.keys():
            loop.call_later(UNUSED_AFTER_S, self._revisions[identity].close)
        self._revisions = loaded
        return {
            ModelId(model.id): GatewayModel(
                model,
                loaded[_identity(model)],
                loaded[_identity(model.as_canary)] if model.as_canary else None,
                cards[model.id],
            )
            for model in models
        }

    async def _loaded(self, model: ModelSettings) -> GatewayRevision:
        files = await asyncio.to_thread(LoadedFiles.of, model.checkpoint, self._shared.exports)
        return GatewayRevision(model, files, self._shared)

    def close(self) -> None:
        for revision in self._revisions.values():
            revision.close()


def portion_limit(portion_tokens_max: int, pair_tokens_max: int) -> Tokens:
    """The limit is the setting, but at least the model's longest pair."""
    return Tokens(max(portion_tokens_max, pair_tokens_max))
