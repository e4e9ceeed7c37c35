"""Print transformers' view of a model's tokenizer files as one line of JSON.

It is a separate program that imports nothing from serve_app; see `docs/decisions/0003`.
"""

import json
import sys
from typing import Any

from transformers import AutoConfig, AutoTokenizer

POSITIONS_AFTER_PADDING = frozenset(
    {
        "roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert",
        "data2vec-text", "ibert", "longformer", "mpnet", "xmod",
    }
)  # fmt: skip
"""Families that start at position padding id + 1: RoBERTa has 514 positions for 512 tokens."""


def export(folder: str) -> dict[str, Any]:
    """Return the fields of `serve_app.engine.tokenizer.TokenizerFiles`. May raise any error."""
    tokenizer = AutoTokenizer.from_pretrained(folder)  # nosec B615 # a local folder
    if not tokenizer.is_fast:
        raise ValueError("its tokenizer has no fast version")
    config = AutoConfig.from_pretrained(folder)  # nosec B615 # a local folder
    return {
        "backend": tokenizer.backend_tokenizer.to_str(),
        "tokenizer_tokens_max": tokenizer.model_max_length,
        "positions": _positions(config),
        "token_types": "token_type_ids" in tokenizer.model_input_names
        and (getattr(config, "type_vocab_size", None) or 0) >= 2,
    }


def _positions(config: Any) -> int | None:
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1:
        return None
    if config.model_type in POSITIONS_AFTER_PADDING:
        return positions - (config.pad_token_id or 0) - 1
    return positions


if __name__ == "__main__":
    sys.stdout.write(json.dumps(export(sys.argv[1])))
