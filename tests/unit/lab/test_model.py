from pathlib import Path

import pytest
import yaml

from cluster.lab.model import fill_cache, hub_models
from cluster.lab.service import PRODUCTION
from serve_app.engine import hub, sources


def test_the_models_of_the_production_file_come_from_the_hub() -> None:
    assert hub_models(PRODUCTION) == {"cross-encoder/ms-marco-MiniLM-L12-v2"}


def test_other_models_need_no_cache(tmp_path: Path) -> None:
    sources = ["embedded", "/models/own"]
    applications = [{"args": {"checkpoint": {"source": each}}} for each in sources]
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"applications": [{}, *applications]}))

    assert hub_models(config) == set()


def test_a_hub_model_is_found_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    fill_cache({"owner/name"}, tmp_path / "model", tmp_path)
    monkeypatch.setattr(hub, "_hub_answers", lambda *_: False)

    def download(source: str, **options: object) -> str:
        return hub.download(source, cache_dir=str(tmp_path / "hub"), **options)  # type: ignore[arg-type]

    folder = sources.resolve("owner/name", None, download)

    assert (folder / "config.json").read_text() == "{}"
