"""A gateway's models keep the state of their revisions while settings change."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serve_app.admission.gate import SharedGate
from serve_app.deployments import gateway_models
from serve_app.deployments.gateway_models import GatewayModel, GatewayModels, Shared
from serve_app.domain.canary import Comparison
from serve_app.domain.units import ModelId, TenantId, Tokens
from serve_app.engine.sources import ModelLoadError
from serve_app.served_model import ServedModel
from serve_app.settings.models import Canary, Checkpoint, ModelSettings
from serve_app.shadow import Shadows
from tests.support.fakes import FakeClock, FakeTokenizer, some_metrics

EMBEDDED = ModelId("embedded")
LIVE = ModelSettings(id="embedded", checkpoint=Checkpoint(source="embedded"))
SHORT = Checkpoint(source="embedded", pair_tokens_max=64)
PROMOTED = LIVE.model_copy(update={"application": "short", "checkpoint": SHORT})


def with_canary(**settings: float) -> ModelSettings:
    canary = Canary(application="short", checkpoint=SHORT, **settings)
    return LIVE.model_copy(update={"canary": canary})


class Loaded(FakeTokenizer):
    """In place of a tokenizer from files."""

    def __init__(self, _: str, __: str | None, pair_tokens_max: int | None, ___: Path) -> None:
        self.pair_tokens_max = Tokens(pair_tokens_max or 512)


async def _ignore(_: Comparison) -> None:
    """Store nothing."""


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[GatewayModels]:
    monkeypatch.setattr(gateway_models, "load_tokenizer", Loaded)
    clock, metrics, gate = FakeClock(), some_metrics(), SharedGate(1_000)
    with ThreadPoolExecutor(1) as threads:
        shadows = Shadows(gate, _ignore, metrics, clock)
        shared = Shared(tmp_path, "gateway", gate, Tokens(512), threads, shadows, metrics, clock)
        models = GatewayModels(shared)
        yield models
        models.close()


def run(models: GatewayModels, *steps: ModelSettings) -> list[GatewayModel]:
    """Load the model with each of these settings in turn."""

    async def load() -> list[GatewayModel]:
        return [(await models.load([step]))[EMBEDDED] for step in steps]

    return asyncio.run(load())


def revisions(model: ServedModel) -> set[str]:
    tenants = (TenantId(f"tn_{number}") for number in range(50))
    return {model.revision(EMBEDDED, tenant).name for tenant in tenants}


def test_a_promoted_canary_keeps_its_queue_and_its_tokenizer(models: GatewayModels) -> None:
    plain, tried, promoted = run(models, LIVE, with_canary(share=0.5), PROMOTED)

    assert tried.live is plain.live
    assert promoted.live is tried.canary
    assert promoted.canary is None
    assert [revisions(each.served) for each in (plain, tried, promoted)] == [
        *({"embedded"}, {"embedded", "short"}, {"short"})
    ]


def test_an_aborted_canary_leaves_the_live_revision_as_it_was(models: GatewayModels) -> None:
    tried, aborted = run(models, with_canary(share=1), LIVE)

    assert aborted.live is tried.live
    assert revisions(tried.served) == {"short"}
    assert revisions(aborted.served) == {"embedded"}


def test_only_the_live_revision_has_shadows_and_only_with_a_share(models: GatewayModels) -> None:
    without, with_shadows = run(models, with_canary(share=0.1), with_canary(shadow_share=0.1))

    assert without.served.live.shadow is None
    assert with_shadows.served.live.shadow is not None
    assert with_shadows.served.canary is not None
    assert with_shadows.served.canary.shadow is None


def test_the_model_is_described_by_its_live_revision(models: GatewayModels) -> None:
    tried, promoted = run(models, with_canary(), PROMOTED)

    assert (tried.card.pair_tokens_max, promoted.card.pair_tokens_max) == (512, 64)


def with_card(path: Path, text: str) -> ModelSettings:
    path.write_text(text, encoding="utf-8")
    return LIVE.model_copy(update={"card": str(path)})


def test_a_card_takes_precedence_over_the_files_of_the_model(
    models: GatewayModels, tmp_path: Path
) -> None:
    card = tmp_path / "card.yaml"
    (plain,) = run(models, LIVE)
    (stated,) = run(models, with_card(card, "license: mit"))
    (changed,) = run(models, with_card(card, "license: acme"))

    assert plain.card.facts["license"] == "apache-2.0"
    assert stated.card.facts == {**plain.card.facts, "license": "mit"}
    assert changed.card.facts["license"] == "acme"


def test_a_wrong_card_changes_nothing(models: GatewayModels, tmp_path: Path) -> None:
    wrong = with_card(tmp_path / "card.yaml", "licence: mit")
    with pytest.raises(
        ModelLoadError, match=r"model embedded: its model card .* licence is not a known"
    ):
        run(models, wrong)
    missing = LIVE.model_copy(update={"card": str(tmp_path / "missing.yaml")})
    with pytest.raises(ModelLoadError, match=r"missing\.yaml.*No such file"):
        run(models, missing)
