"""Layers 7 and 8 and the head, on cached states, for every pair of some queries and documents.

Layer 8 computes only [CLS]. Document tokens are computed once for all queries: in layer 7, they see
their document and [CLS], but not the query. The logits are nearly those of the whole model.
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


@dataclass(frozen=True, slots=True)
class Compared:
    """States after layer 7."""

    rows: torch.Tensor
    """(documents, R, HIDDEN): for each document, the tokens of all queries."""

    documents: list[tuple[list[int], Padded]]
    """Places of some documents, and their tokens' states, which are the same for every query."""


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


def compared(model: Any, query: Padded, documents: Sequence[torch.Tensor]) -> Compared:
    """Compute layer 7 of every pair."""
    match = model.bert.encoder.layer[-2]
    real = query.mask
    own, own_sum = attend(*projected(match, query.states, query.states), real[:, None, None])
    own, own_sum = own.transpose(1, 2)[real], own_sum.transpose(1, 2)[real]
    rows = query.states[real]
    asked = heads(match.attention.self.query(rows))
    places: list[int] = []
    parts, chunks = [], []
    for chunk, document in split(documents):
        key, value = keys(match, document.states)
        found, summed = attend(asked[None], key, value, document.mask[:, None, None])
        share = (summed.transpose(1, 2) - own_sum).sigmoid()[..., None]
        context = (share * found.transpose(1, 2) + (1 - share) * own).flatten(2)
        parts.append(after(match, context, rows))
        places += chunk
        chunks.append((chunk, alone(match, rows[:1], document)))
    return Compared(torch.cat(parts)[torch.tensor(places).argsort()], chunks)


def alone(match: Any, first: torch.Tensor, document: Padded) -> Padded:
    """Compute layer 7 of document tokens, which see their document and [CLS].

    Args:
        first: (1, HIDDEN): the state of [CLS], which is the same in every pair.
    """
    seen = torch.cat([first.expand(len(document.states), 1, -1), document.states], 1)
    query = heads(match.attention.self.query(document.states))
    mask = nn.functional.pad(document.mask, (1, 0), value=True)
    context, _ = attend(query, *keys(match, seen), mask[:, None, None])
    states = after(match, context.transpose(1, 2).flatten(2), document.states)
    return Padded(states, document.mask)


def read_out(model: Any, pairs: Compared, real: torch.Tensor) -> torch.Tensor:
    """Return (documents, queries): logits from the states after layer 7.

    Args:
        real: (queries, L) bool, with R entries that are true.
    """
    read = model.bert.encoder.layer[-1]
    owner = real.nonzero()[:, 0]
    starts = real.sum(1).cumsum(0) - real.sum(1)
    first = pairs.rows[:, starts]
    attention = read.attention.self
    query, key, value = (
        linear(rows).unflatten(-1, (HEADS, HEAD_SIZE))
        for linear, rows in (
            (attention.query, first),
            (attention.key, pairs.rows),
            (attention.value, pairs.rows),
        )
    )
    similar = (query[:, owner] * key).sum(-1).float() / HEAD_SIZE**0.5
    largest = similar.detach().amax(1, keepdim=True)
    weights = (similar - largest).exp()
    total = weights.new_zeros(*first.shape[:2], HEADS).index_add(1, owner, weights)
    shares = (weights / total[:, owner])[..., None] * value
    own = shares.new_zeros(query.shape).index_add(1, owner, shares)
    own_sum = total.log() + largest
    parts, places = [], []
    for chunk, document in pairs.documents:
        found, summed = attend(
            query[chunk].transpose(1, 2), *keys(read, document.states), document.mask[:, None, None]
        )
        share = (summed.transpose(1, 2) - own_sum[chunk]).sigmoid()[..., None]
        parts.append(share * found.transpose(1, 2) + (1 - share) * own[chunk])
        places += chunk
    context = torch.cat(parts)[torch.tensor(places).argsort()]
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
