"""Facts that a model's own config, weights and README state.

A file that cannot be read states nothing.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serve_app.domain.model import EMBEDDED
from serve_app.domain.model_card import FACT_CHARACTERS_MAX, FACTS_MAX
from serve_app.engine.sources import ModelLoadError, resolve

EMBEDDED_CARD = Path(__file__).parent / "embedded" / "card.yaml"
"""In the form of an operator's model card."""

README_CHARACTERS_MAX = 100_000
HEADER_BYTES_MAX = 100_000_000
"""The largest header that the safetensors format allows."""

_LINK = re.compile(r"https://[^\s<>\"]{1,1000}")
_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)


def stated_facts(source: str, revision: str | None) -> dict[str, Any]:
    """Return what a loaded model's files state, by field of a model card, without the network."""
    if source == EMBEDDED:
        found: dict[str, Any] = yaml.safe_load(EMBEDDED_CARD.read_text(encoding="utf-8"))
        return found
    from serve_app.engine import hub  # noqa: PLC0415 - reads HF_HOME when imported

    try:
        folder = resolve(source, revision, hub.cached)
    except ModelLoadError:
        return {}
    config, readme = _config(folder), _front_matter(folder)
    link = str(readme.get("license_link"))
    facts: dict[str, Any] = {
        "architecture": next(iter(_texts(config.get("architectures"))), None),
        "parameters": _weights(folder),
        "base_model": next(iter(_texts(readme.get("base_model"))), None),
        "languages": _texts(readme.get("language")),
        "license": next(
            iter(_texts(readme.get("license_name")) or _texts(readme.get("license"))), None
        ),
        "license_url": link if _LINK.fullmatch(link) else None,
        "training_data": _texts(readme.get("datasets")),
    }
    return {name: value for name, value in facts.items() if value}


def _config(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _front_matter(folder: Path) -> dict[str, Any]:
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            match = _FRONT_MATTER.match(file.read(README_CHARACTERS_MAX))
        found = yaml.safe_load(match[1]) if match else {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    texts = [each for each in values if isinstance(each, str)]
    return [each for each in texts if 0 < len(each) <= FACT_CHARACTERS_MAX][:FACTS_MAX]


def _weights(folder: Path) -> int | None:
    """Return the number of weights in safetensors files; ``None`` without any."""
    whole = folder / "model.safetensors"
    files = [whole] if whole.exists() else sorted(folder.glob("model-*-of-*.safetensors"))
    files += sorted(folder.glob("*/model.safetensors"))  # The modules of sentence-transformers.
    try:
        return sum(size for file in files for size in _sizes(file)) or None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # The scorer reports a damaged file.


def _sizes(path: Path) -> Iterator[int]:
    """Yield the sizes of the tensors of weights, from the file's header."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > HEADER_BYTES_MAX:
            raise ValueError("the file is not in the safetensors format")
        header = json.loads(file.read(length))
    for name, tensor in header.items():
        # Integers are positions, not weights.
        if name != "__metadata__" and tensor["dtype"].startswith(("F", "BF")):
            yield math.prod(tensor["shape"])
