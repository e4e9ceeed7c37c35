"""Layers 1 to 6 of the construction: the encoder's, changed to read query and document apart."""

import math
from dataclasses import replace
from typing import Any

import torch
from torch.nn.functional import layer_norm

from training.data import DOCUMENT, FIRST, QUERY, Batch, tokenizer
from training.sample import (
    FLAG,
    HEAD_SIZE,
    HEADS,
    HIDDEN,
    ISOLATION,
    SILENCED,
    Sample,
    attend,
    scatter,
)

FLAG_IN_EMBEDDINGS = 0.1

SILENCE = 0.1
"""Factor on the silenced coordinates before the last layer norm, so that it scales tokens alike."""

FIRST_BEFORE = 15.0
"""[CLS]'s flag before layer 6's last norm. The norm reduces it to 1."""

GATE = 40.0
"""Slope of the feed-forward unit that is active only at [CLS]."""


def least_used(encoder: Any, batch: Batch, apart: torch.Tensor) -> list[int]:
    """Return the three coordinates that contribute least variance to the layers' products."""
    states = encoder(batch.input_ids, apart, output_hidden_states=True).hidden_states
    use = states[-1][batch.real].var(0)
    use /= use.sum()
    for layer, hidden in zip(encoder.encoder.layer, states, strict=False):
        attention = layer.attention.self
        weights = torch.cat(
            [
                attention.query.weight,
                attention.key.weight,
                attention.value.weight,
                layer.intermediate.dense.weight,
            ]
        )
        share = hidden[batch.real].var(0) * weights.pow(2).sum(0)
        use += share / share.sum()
    use[list(SILENCED)] = torch.inf
    return [int(place) for place in use.argsort()[:3]]


def flag_embeddings(embeddings: Any, flags: list[int]) -> None:
    """Add the segment flags. Otherwise type 1 equals type 0, which the encoder was trained with."""
    query, document, _ = flags
    words = embeddings.word_embeddings.weight
    types = embeddings.token_type_embeddings.weight
    types[1] = types[0]
    for table in (words, embeddings.position_embeddings.weight, types):
        table[:, flags[:2]] = 0
    types[0, query] = types[1, document] = FLAG_IN_EMBEDDINGS
    words[tokenizer().cls_token_id, query] = -FLAG_IN_EMBEDDINGS


def restore_flags(norm: Any, into: torch.Tensor, sample: Sample) -> torch.Tensor:
    """Set ``norm`` so that it returns flags as `FLAG` or 0, and all else as without flags.

    Args:
        into: (T, HIDDEN) input of the norm for the real tokens.

    Returns: (B, L, HIDDEN) its output; padding is zero.
    """
    others = [place for place in range(HIDDEN) if place not in sample.flags[:2]]
    standard = layer_norm(into, (HIDDEN,))
    for coordinate, (own, other) in zip(
        sample.flags[:2], ((QUERY, DOCUMENT), (DOCUMENT, QUERY)), strict=True
    ):
        absent = standard[sample.where(other), coordinate].mean()
        present = standard[sample.where(own), coordinate].mean()
        norm.weight[coordinate] = FLAG / (present - absent)
        norm.bias[coordinate] = -FLAG / (present - absent) * absent
    spread = into.std(1, unbiased=False) / into[:, others].std(1, unbiased=False)
    norm.weight[others] *= spread.mean()
    return scatter(norm(into), sample)


def isolate_layer(layer: Any, sample: Sample, means: tuple[Any, Any], *, last: bool) -> None:
    """Change one of the encoder's layers, and move ``sample`` through it.

    Args:
        means: Mean states of the original encoder at this layer's input and between its halves.
        last: Whether this is layer 6, which also silences coordinates and marks [CLS].
    """
    attention, middle, output = layer.attention, layer.intermediate.dense, layer.output
    flags = sample.flags[:2]
    for linear in (attention.self.query, attention.self.key, attention.self.value):
        without(linear, flags, means[0])
    isolate(attention.self, sample)
    for linear in (attention.output.dense, output.dense):
        linear.weight[flags] = 0
        linear.bias[flags] = 0
    without(middle, flags, means[1])

    context, _ = attend(attention.self, sample.hidden, sample.mask)
    into = (attention.output.dense(context) + sample.hidden)[sample.real]
    restore_flags(attention.output.LayerNorm, into, sample)
    if last:
        silence(layer)
        without(middle, sample.flags[2:], means[1])
        for linear in (attention.output.LayerNorm, output.dense):
            linear.weight[sample.flags[2]] = 0
            linear.bias[sample.flags[2]] = 0
    between = attention.output.LayerNorm(into)
    unit = spare_unit(layer, scatter(between, sample), sample) if last else None
    into = output.dense(layer.intermediate(between)) + between
    sample.hidden = restore_flags(output.LayerNorm, into, sample)
    if unit is not None:
        mark_first(layer, unit, between, sample)


def isolate(attention: Any, sample: Sample) -> None:
    """Stop attention between query and document, and from [CLS] to all but itself."""
    query_flag, document_flag, _ = sample.flags
    strength = math.sqrt(ISOLATION * math.sqrt(HEAD_SIZE))
    indicator, rest, _ = indicator_of(sample)
    for head, free in enumerate(least_attended(attention, sample)):
        rows = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
        kept = torch.eye(HEAD_SIZE) - free @ free.T
        for linear in (attention.query, attention.key):
            linear.weight[rows] = kept @ linear.weight[rows]
            linear.bias[rows] = kept @ linear.bias[rows]
        first, second = free.T * strength
        attention.query.weight[rows, query_flag] += first / FLAG
        attention.query.weight[rows, document_flag] += second / FLAG
        attention.query.weight[rows] += (first + second)[:, None] * indicator
        attention.query.bias[rows] -= (first + second) * (indicator @ rest)
        attention.key.weight[rows, document_flag] -= first / FLAG
        attention.key.weight[rows, query_flag] -= second / FLAG


def least_attended(attention: Any, sample: Sample) -> list[torch.Tensor]:
    """Return (HEAD_SIZE, 2) for each head: directions in which queries and keys matter least.

    Tokens are weighted by the attention to and from them; both segments have the same total weight.
    """
    _, probabilities = attend(attention, sample.hidden, sample.apart)
    segments = sample.batch.segments
    rows = sum((segments == each).float() / (segments == each).sum() for each in (QUERY, DOCUMENT))
    received = torch.einsum("bhij,bi->bjh", probabilities, rows)[sample.real]
    queries = attention.query(sample.hidden)[sample.real].unflatten(1, (HEADS, HEAD_SIZE))
    keys = attention.key(sample.hidden)[sample.real].unflatten(1, (HEADS, HEAD_SIZE))
    weights = torch.as_tensor(rows)[sample.real][:, None]
    directions = []
    for head in range(HEADS):
        query, key, weight = queries[:, head], keys[:, head], received[:, head, None]
        key = key - (key * weight).sum(0) / weight.sum()
        of_queries = (query * weights).T @ query
        of_keys = (key * weight).T @ key
        both = of_queries / of_queries.trace() + of_keys / of_keys.trace()
        directions.append(torch.linalg.eigh(both).eigenvectors[:, :2])
    return directions


def indicator_of(sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find a direction that separates [CLS] from other tokens: linear discriminant with a ridge.

    Along it, [CLS] is 1 away from the mean of the other tokens, which differ by about 0.04.

    Returns: direction, mean state of the other tokens, state of [CLS]; each (HIDDEN,).
    """
    rest = sample.hidden[sample.real & (sample.batch.segments != FIRST)]
    first = sample.hidden[:, 0].mean(0)
    covariance = torch.cov(rest.T) + 1e-3 * torch.eye(HIDDEN)
    direction = torch.linalg.solve(covariance, first - rest.mean(0))
    return direction / (direction @ (first - rest.mean(0))), rest.mean(0), first


def without(linear: Any, flags: list[int], mean: torch.Tensor) -> None:
    """Stop ``linear`` from reading the flags' coordinates; move their former mean to the bias."""
    linear.bias += linear.weight[:, flags] @ mean[flags]
    linear.weight[:, flags] = 0


def silence(layer: Any) -> None:
    """Silence the three coordinates in the norm after the feed-forward layer.

    The feed-forward layer itself still reads their original values.
    """
    places = list(SILENCED)
    norm = layer.attention.output.LayerNorm
    norm.weight[places] *= SILENCE
    norm.bias[places] *= SILENCE
    layer.intermediate.dense.weight[:, places] /= SILENCE
    layer.output.dense.weight[places] *= SILENCE
    layer.output.dense.bias[places] *= SILENCE
    layer.output.LayerNorm.weight[places] = 0
    layer.output.LayerNorm.bias[places] = 0


def spare_unit(layer: Any, between: torch.Tensor, sample: Sample) -> int:
    """Make the feed-forward unit with the least effect active only at [CLS]; return its index.

    Args:
        between: (B, L, HIDDEN) states between the layer's halves.
    """
    middle, out = layer.intermediate.dense, layer.output.dense
    active = layer.intermediate(between[sample.real])
    unit = int((active.std(0) * out.weight.norm(dim=0)).argmin())
    out.bias += active[:, unit].mean() * out.weight[:, unit]
    out.weight[:, unit] = 0
    indicator, rest, _ = indicator_of(replace(sample, hidden=between))
    middle.weight[unit] = GATE * indicator
    middle.bias[unit] = -GATE * (indicator @ rest + 0.5)
    return unit


def mark_first(layer: Any, unit: int, between: torch.Tensor, sample: Sample) -> None:
    """Give [CLS] its own flag, which is 0 for other tokens, and exact segment flags."""
    out, norm = layer.output.dense, layer.output.LayerNorm
    first = between[sample.where(FIRST)].mean(0, keepdim=True)
    flag = sample.flags[2]
    out.weight[flag, unit] = 2 * FIRST_BEFORE / GATE
    norm.weight[flag], norm.bias[flag] = 1.0, 0.0
    for _ in range(100):
        into = out(layer.intermediate(first)) + first
        missing = torch.tensor((0.0, FLAG)) - norm(into)[0, sample.flags[:2]]
        step = missing / norm.weight[sample.flags[:2]] * into.std() * 2 / GATE
        out.weight[sample.flags[:2], unit] += 0.5 * step
    into = out(layer.intermediate(between)) + between
    standard = layer_norm(into, (HIDDEN,))[:, flag]
    absent = standard[~sample.where(FIRST)].mean()
    norm.weight[flag] = 1 / (standard[sample.where(FIRST)].mean() - absent)
    norm.bias[flag] = -absent * norm.weight[flag]
    sample.hidden = scatter(norm(into), sample)
