"""Settings: their precedence, and limits that are consistent with each other."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from serve_app.domain.model_card import Prices, Tariff
from serve_app.settings.gateway import Settings
from serve_app.settings.live import LiveSettings
from serve_app.settings.models import Canary, Checkpoint, ModelSettings
from serve_app.settings.scorer import ScorerSettings

X = Checkpoint(source="x")
CANARY = {"application": "x", "checkpoint": X}
TWO = [{"id": "a", "checkpoint": X}, {"id": "b", "checkpoint": X}]


def test_arguments_override_the_environment_which_overrides_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RERANK_KEY_CACHE_S", "1")
    monkeypatch.setenv("RERANK_TOKENIZER_THREADS", "5")

    settings = Settings(key_cache_s=2)

    assert settings.key_cache_s == 2
    assert settings.tokenizer_threads == 5
    assert settings.charges_kept_days == 90


def test_the_default_ledger_has_an_absolute_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().resolved_database_url == f"sqlite:///{Path('var/rerank.db').absolute()}"

    monkeypatch.setenv("LEDGER", "postgresql://host/database")
    assert Settings(database_url="env:LEDGER").resolved_database_url.startswith("postgresql")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"database_url": "env:NOT_THERE"}, "NOT_THERE"),
        ({"events_token": "env:NOT_THERE"}, "NOT_THERE"),
        ({"events_token": "literal"}, "env:NAME"),
        ({"events_url": "ftp://host"}, "events_url"),
        ({"events_url": "https://user:secret@host/x"}, "use events_token"),
        ({"key_cache_s": 6}, "key_cache_s"),
        ({"no_such_setting": 1}, "no_such_setting"),
    ],
)
def test_inconsistent_settings_are_refused_by_name(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**arguments)  # type: ignore[arg-type]  # values from a config file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"models": []}, "models"),
        ({"models": [TWO[0], TWO[0]]}, "used more than once"),
        ({"models": [TWO[0] | {"aliases": ["b"]}, TWO[1]]}, "used more than once"),
        ({"models": [each | {"aliases": ["c"]} for each in TWO]}, "used more than once"),
        ({"models": [TWO[0] | {"aliases": ["a"]}]}, "used more than once"),
        ({"models": [TWO[0], TWO[1] | {"aliases": ["A"]}]}, "used more than once"),
        ({"models": [TWO[0], TWO[1] | {"aliases": ["Embedded"]}]}, "'embedded'"),
        ({"models": [TWO[0] | {"aliases": [""]}]}, "aliases"),
        ({"models": [TWO[0] | {"aliases": ["x" * 257]}]}, "aliases"),
        ({"models": [{"id": "a/b", "checkpoint": X}, {"id": "a-b", "checkpoint": X}]}, "same name"),
        ({"models": [each | {"application": "m"} for each in TWO]}, "same name"),
        ({"models": [TWO[0] | {"canary": {"application": "a", "checkpoint": X}}]}, "same name"),
        ({"models": [TWO[0] | {"canary": CANARY | {"share": 1.1}}]}, "share"),
        ({"models": [TWO[0] | {"canary": {"application": "x"}}]}, "checkpoint"),
        ({"models": [TWO[0] | {"pricee": 8}]}, "pricee"),
        ({"request_timeout_s": 61}, "request_timeout_s"),
        ({"cors_allowed_origins": ["app.example"]}, "cors_allowed_origins"),
        ({"cors_allowed_origins": ["https://app.example/"]}, "cors_allowed_origins"),
        ({"cors_allowed_origins": ["https://App.example"]}, "cors_allowed_origins"),
        ({"cors_allowed_origins": ["https://*.example"]}, "cors_allowed_origins"),
        ({"no_such_setting": 1}, "no_such_setting"),
    ],
)
def test_inconsistent_live_settings_are_refused_by_name(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        LiveSettings(**arguments)


def test_a_batch_holds_a_portion() -> None:
    with pytest.raises(ValueError, match="batch_tokens_max"):
        ScorerSettings(checkpoint=X, batch_tokens_max=1_000)


def test_an_application_is_named_after_its_model() -> None:
    model = ModelSettings(id="cross-encoder/ms-marco-MiniLM-L12-v2", checkpoint=X)

    assert model.application_name == "cross-encoder-ms-marco-MiniLM-L12-v2"


def test_a_revision_names_the_application_and_the_revision_of_the_checkpoint() -> None:
    model = ModelSettings(
        id="a",
        checkpoint=X,
        canary=Canary(application="a-2", checkpoint=Checkpoint(source="x", revision="v2")),
    )

    assert model.revision == "a"
    assert model.as_canary is not None
    assert model.as_canary.revision == "a-2@v2"
    assert model.as_canary.tariff == model.tariff
    assert model.as_canary.as_canary is None


def test_the_events_token_is_in_no_message_and_reaches_other_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SINK", "ttsecrettoken")
    settings = Settings(events_token=SecretStr("env:SINK"))

    assert pickle.loads(pickle.dumps(settings)).events_token.get_secret_value() == "ttsecrettoken"
    assert "ttsecrettoken" not in f"{settings!r} {settings} {settings.model_dump_json()}"


@pytest.mark.parametrize("token", ["two words", "line\n", "é"])
def test_a_token_that_no_header_can_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("SINK", token)
    with pytest.raises(ValueError, match="printable ASCII"):
        Settings(events_token=SecretStr("env:SINK"))


@pytest.mark.parametrize(
    "wrong",
    [{"events_token": "ttsecret token"}, {"key_cache_s": 61, "database_url": "ttsecret"}],
)
def test_a_refused_value_is_not_repeated(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="error") as refusal:
        Settings(**wrong)  # type: ignore[arg-type]  # values from a config file

    assert "ttsecret" not in str(refusal.value)


@pytest.mark.parametrize(
    ("price", "flex", "priority", "expected"),
    [
        (8, None, None, (8, 4, 16)),
        (5, None, None, (5, 3, 10)),
        (0, None, None, (0, 0, 0)),
        (8, 0, 9, (8, 0, 9)),
    ],
)
def test_by_default_flex_costs_half_and_priority_twice(
    price: int, flex: int | None, priority: int | None, expected: tuple[int, int, int]
) -> None:
    model = ModelSettings(
        id="a",
        checkpoint=X,
        price_micro_dollars_per_document=price,
        flex_price_micro_dollars_per_document=flex,
        priority_price_micro_dollars_per_document=priority,
        price_micro_dollars_per_million_tokens=price,
        flex_price_micro_dollars_per_million_tokens=flex,
        priority_price_micro_dollars_per_million_tokens=priority,
    )

    assert model.tariff == Tariff(Prices(*expected), Prices(*expected))


def test_tokens_are_free_by_default() -> None:
    tariff = ModelSettings(id="a", checkpoint=X).tariff

    assert tariff == Tariff(Prices(8, flex=4, priority=16))
    assert tariff.per_million_tokens == Prices(0, flex=0, priority=0)
