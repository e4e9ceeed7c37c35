"""Download models from the hub.

Importing this imports the hub's client, which reads ``HF_HOME``.
"""

from pathlib import Path

from huggingface_hub import HfApi, constants, errors, snapshot_download

from serve_app.engine.sources import Download, ModelLoadError

FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "README.md")
"""Pickled weights are excluded, because loading them runs their code."""

OTHER_RUNTIMES = ("onnx/*", "openvino/*")


def download(source: str, *, revision: str | None, **patterns: list[str]) -> str:
    """Run `snapshot_download`, only from the local cache if the hub does not answer in time.

    The hub client's variable ``HF_HUB_ETAG_TIMEOUT`` sets that time, 10 s by default.
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
    """Do the same as `download`, without the network."""
    return str(snapshot_download(source, revision=revision, local_files_only=True, **patterns))


def _hub_answers(source: str, revision: str | None) -> bool:
    try:
        HfApi().model_info(source, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except (errors.HfHubHTTPError, errors.HFValidationError):
        return True  # The download raises the same error, or uses the cache.
    except Exception:  # noqa: BLE001  Network errors come from the client's HTTP library.
        return False
    return True


def find(source: str, revision: str | None, download: Download) -> Path:
    """Return the folder of the hub model ``source``. Raises: ModelLoadError."""
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
    except Exception as error:
        raise _unreachable(source) from error
    return Path(folder)


def _unreachable(source: str) -> ModelLoadError:
    return ModelLoadError(
        f"model {source}: the hub cannot be reached and the model is not in the local cache; "
        "copy it to this node and name its folder instead, or use `embedded`"
    )
