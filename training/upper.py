"""Layers 7 and 8 and the head, on cached states, for every pair of some queries and documents.

Layer 7 computes only query rows, layer 8 only [CLS]; document tokens are keys and values of layer 7
only. Layer 8's [CLS] ignores document tokens, which would have a weight below 0.0001. Keys and
values of a document serve all queries. The logits are nearly those of the whole model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

HEADS, HEAD_SIZE, HIDDEN = 12, 32, 384
SHARPNESS = 20.0
"""Factor on the cosines in late interaction's log-sum-exp."""


@dataclass(frozen=True, slots=True)
class Texts:
    """States of many texts, concatenated."""

    states: torch.Tensor
    """(T, HIDDEN) float16: [CLS], query and [SEP] of a query; document and [SEP] of a document."""

    starts: torch.Tensor
    """(N + 1,) int64: text ``i`` has rows ``starts[i]`` to ``starts[i + 1]``."""

    ids: torch.Tensor
    """(T,) int32: the token of each row."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.states[self.starts[index] : self.starts[index + 1]]

    def __len__(self) -> int:
        return len(self.starts) - 1

    def tokens(self, index: int) -> list[int]:
        """Return the token ids of text ``index``, including special tokens."""
        ids: list[int] = self.ids[self.starts[index] : self.starts[index + 1]].tolist()
        return ids


@dataclass(frozen=True, slots=True)
class Padded:
    """States of some texts."""

    states: torch.Tensor
    """(N, L, HIDDEN) float32."""

    mask: torch.Tensor
    """(N, L) bool: whether a position is a token rather than padding."""


def padded(texts: Sequence[torch.Tensor]) -> Padded:
    states = nn.utils.rnn.pad_sequence(list(texts), batch_first=True).float()
    lengths = torch.tensor([len(text) for text in texts])
    return Padded(states, torch.arange(states.shape[1]) < lengths[:, None])


def split(documents: Sequence[torch.Tensor], size: int = 12) -> list[tuple[list[int], Padded]]:
    """Pad documents of similar length together; return their places with them."""
    order = sorted(range(len(documents)), key=lambda place: len(documents[place]))
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    return [(chunk, padded([documents[place] for place in chunk])) for chunk in chunks]


def heads(states: torch.Tensor) -> torch.Tensor:
    """Reshape (..., L, HIDDEN) to (..., HEADS, L, HEAD_SIZE)."""
    return states.unflatten(-1, (HEADS, HEAD_SIZE)).transpose(-3, -2)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the attended values (..., R, HEAD_SIZE) and log-sum-exps of the logits (..., R)."""
    logits = (query @ key.transpose(-1, -2)).float() / HEAD_SIZE**0.5
    logits = logits.masked_fill(~mask, -1e4)
    summed = logits.logsumexp(-1)
    return (logits - summed[..., None]).exp().to(value.dtype) @ value, summed


def logits(
    model: Any, queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return (queries, documents) float32: the logit of every pair.

    Args:
        queries: States as in `Texts`, and likewise ``documents``.
    """
    query = padded(queries)
    return read_out(model, compared(model, query, documents), query.mask).T.float()


def compared(model: Any, query: Padded, documents: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return (documents, R, HIDDEN): the query tokens' rows after layer 7, for each document."""
    match = model.bert.encoder.layer[-2]
    real = query.mask
    own, own_sum = attend(*projected(match, query.states, query.states), real[:, None, None])
    own, own_sum = own.transpose(1, 2)[real], own_sum.transpose(1, 2)[real]
    rows = query.states[real]
    asked = heads(match.attention.self.query(rows))
    places: list[int] = []
    parts = []
    for chunk, document in split(documents):
        key, value = keys(match, document.states)
        found, summed = attend(asked[None], key, value, document.mask[:, None, None])
        share = (summed.transpose(1, 2) - own_sum).sigmoid()[..., None]
        context = (share * found.transpose(1, 2) + (1 - share) * own).flatten(2)
        parts.append(after(match, context, rows))
        places += chunk
    return torch.cat(parts)[torch.tensor(places).argsort()]


def read_out(model: Any, states: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return (documents, queries): logits from the query rows after layer 7.

    Args:
        states: (documents, R, HIDDEN): the rows of all queries.
        real: (queries, L) bool, with R entries that are true.
    """
    read = model.bert.encoder.layer[-1]
    owner = real.nonzero()[:, 0]
    starts = real.sum(1).cumsum(0) - real.sum(1)
    first = states[:, starts]
    attention = read.attention.self
    query, key, value = (
        linear(rows).unflatten(-1, (HEADS, HEAD_SIZE))
        for linear, rows in (
            (attention.query, first),
            (attention.key, states),
            (attention.value, states),
        )
    )
    similar = (query[:, owner] * key).sum(-1).float() / HEAD_SIZE**0.5
    largest = similar.detach().amax(1, keepdim=True)
    weights = (similar - largest).exp()
    total = weights.new_zeros(*first.shape[:2], HEADS).index_add(1, owner, weights)
    shares = (weights / total[:, owner])[..., None] * value
    context = shares.new_zeros(query.shape).index_add(1, owner, shares)
    last = after(read, context.flatten(-2), first)
    pooled = model.bert.pooler(last.flatten(0, 1)[:, None]).unflatten(0, last.shape[:2])
    scores: torch.Tensor = model.classifier(pooled)[..., 0]
    return scores


def projected(layer: Any, rows: torch.Tensor, seen: torch.Tensor) -> tuple[Any, Any, Any]:
    return heads(layer.attention.self.query(rows)), *keys(layer, seen)


def keys(layer: Any, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    attention = layer.attention.self
    return heads(attention.key(seen)), heads(attention.value(seen))


def after(layer: Any, context: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Compute the rest of a layer after its attention."""
    between = layer.attention.output(context, rows.expand(*context.shape[:-1], HIDDEN))
    done: torch.Tensor = layer.output(layer.intermediate(between), between)
    return done


def late_interaction(
    queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]
) -> torch.Tensor:
    """Return (queries, documents): late interaction scores, means of `matches` over tokens."""
    lengths = [len(query) - 2 for query in queries]
    parts = matches(queries, documents).split(lengths, 1)
    return torch.stack([part.mean(1) for part in parts])


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def matches(queries: Sequence[torch.Tensor], documents: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return (documents, R): for each query token, the soft maximum of its cosines.

    [CLS] and [SEP], which match in every document, do not count.
    """
    rows = nn.functional.normalize(torch.cat([query[1:-1].float() for query in queries]), dim=1)
    found = torch.zeros(len(documents), len(rows))
    for chunk, document in split([each[:-1] for each in documents]):
        states = nn.functional.normalize(document.states, dim=2)
        cosines = (rows @ states.transpose(1, 2)).masked_fill(~document.mask[:, None], -1e4)
        found[chunk] = (SHARPNESS * cosines).logsumexp(2) / SHARPNESS
    return found


def means(texts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return (N, HIDDEN): each text's mean state, normalised."""
    return nn.functional.normalize(torch.stack([text.float().mean(0) for text in texts]))
