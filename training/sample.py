"""A sample of training pairs on its way through the constructed layers, and attention on it."""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training.data import FIRST, QUERY, SEP, Batch, as_searched, collate, read_set, token_ids

HIDDEN, HEADS, HEAD_SIZE = 384, 12, 32

CONTENT = HEAD_SIZE - 2
"""Dimensions of a head that compare meaning; the other two read flags."""

SILENCED = (127, 223, 319)
"""Coordinates in which this encoder's last layer norm has a gain of zero."""

FLAG = 4.0
"""A flag's value in every layer's input. Other coordinates have a magnitude of about 0.6."""

ISOLATION = 16.0
"""Penalty on an attention logit between the segments."""


@dataclass
class Sample:
    """Training pairs and their states after the layers constructed so far."""

    batch: Batch
    mask: torch.Tensor
    """(B, 1, 1, L): mask that excludes padding from attention."""

    apart: torch.Tensor
    """(B, 1, L, L): mask with the isolation that the construction imitates."""

    hidden: torch.Tensor
    """(B, L, HIDDEN): input of the next layer."""

    flags: list[int]
    """Coordinates of the flags of query, document and, after layer 6, [CLS]."""

    @property
    def real(self) -> torch.Tensor:
        return self.batch.real

    @property
    def ordinary(self) -> torch.Tensor:
        """(B, L) bool: tokens of the texts, without special tokens and padding."""
        return self.real & (self.batch.input_ids != SEP) & (self.batch.segments != FIRST)

    @property
    def queries(self) -> torch.Tensor:
        """(T,) bool over the real tokens: whether it is a query's, without special tokens."""
        return (self.ordinary & (self.batch.segments == QUERY))[self.real]

    def where(self, segment: int) -> torch.Tensor:
        """Return (T,) bool over the real tokens: whether it is in ``segment``."""
        return self.batch.segments[self.real] == segment


def sample_pairs(root: Path, count: int = 192) -> Batch:
    """Sample questions with their own or another paragraph, truncated to different lengths."""
    rng = random.Random(0)
    passages, pairs = read_set(root, "squad-v1.1-train")
    chosen = rng.sample(pairs, count)
    queries = [as_searched(pair["query"], rng) for pair in chosen]
    documents = [
        passages[rng.choice([pair["positive"], *pair["negatives"][:1]])] for pair in chosen
    ]
    return collate(
        [
            (query, document[: rng.choice((60, 100, 150))])
            for query, document in zip(
                token_ids(queries, 40), token_ids(documents, 150), strict=True
            )
        ]
    )


def isolation(batch: Batch) -> torch.Tensor:
    """Return (B, 1, L, L): 0 where a token may attend, else a large negative number."""
    segments = batch.segments
    allowed = segments[:, :, None] == segments[:, None, :]
    allowed[:, :, 0] = True
    allowed &= batch.real[:, None, :]
    return torch.where(allowed, 0.0, -1e4)[:, None]


def scatter(rows: torch.Tensor, sample: Sample) -> torch.Tensor:
    hidden = torch.zeros(*sample.real.shape, rows.shape[1])
    hidden[sample.real] = rows
    return hidden


def heads(states: torch.Tensor) -> torch.Tensor:
    """Reshape (B, L, HIDDEN) to (B, HEADS, L, HEAD_SIZE)."""
    return states.unflatten(2, (HEADS, HEAD_SIZE)).transpose(1, 2)


def attend(attention: Any, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[Any, Any]:
    """Return context (B, L, HIDDEN) and probabilities (B, HEADS, L, L)."""
    query, key, value = (
        heads(linear(hidden)) for linear in (attention.query, attention.key, attention.value)
    )
    logits = query @ key.transpose(2, 3) / math.sqrt(HEAD_SIZE) + mask
    probabilities = logits.softmax(-1)
    return (probabilities @ value).transpose(1, 2).flatten(2), probabilities
