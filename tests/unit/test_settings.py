"""Settings: one precedence, and limits that fit each other."""

from pathlib import Path

import pytest

from serve_app.settings import ModelSettings, Settings

TWO = [{"id": "a", "source": "x"}, {"id": "b", "source": "x"}]


def test_arguments_win_over_the_environment_and_that_over_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RERANK_KEY_CACHE_S", "1")
    monkeypatch.setenv("RERANK_BODY_BYTES_MAX", "5000")

    settings = Settings(key_cache_s=2)

    assert settings.key_cache_s == 2
    assert settings.body_bytes_max == 5_000
    assert settings.documents_per_request_max == 1_000


def test_the_ledger_lies_at_an_absolute_path_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().resolved_database_url == f"sqlite:///{Path('var/rerank.db').absolute()}"

    monkeypatch.setenv("LEDGER", "postgresql://host/database")
    assert Settings(database_url="env:LEDGER").resolved_database_url.startswith("postgresql")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"database_url": "env:NOT_THERE"}, "NOT_THERE"),
        ({"models": []}, "models"),
        ({"models": [TWO[0], TWO[0]]}, "same id"),
        ({"models": [{"id": "a/b", "source": "x"}, {"id": "a-b", "source": "x"}]}, "same name"),
        ({"models": [TWO[0] | {"deployment": "gateway"}]}, "same name"),
        ({"models": [TWO[0] | {"pricee": 8}]}, "pricee"),
        ({"request_timeout_s": 61}, "request_timeout_s"),
        ({"batch_tokens_max": 1_000}, "batch_tokens_max"),
        ({"key_cache_s": 6}, "key_cache_s"),
        ({"no_such_setting": 1}, "no_such_setting"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Settings(**arguments)  # type: ignore[arg-type]  # what a config file may hold


def test_a_deployment_is_named_after_its_model() -> None:
    model = ModelSettings(id="cross-encoder/ms-marco-MiniLM-L12-v2", source="x")

    assert model.deployment_name == "scorer-cross-encoder-ms-marco-MiniLM-L12-v2"
