"""Layers 7 and 8 of the construction and its head: match each query token, average the matches."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import layer_norm

from training.data import FIRST
from training.sample import (
    CONTENT,
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

MATCHED, ANSWER = 127, 223
"""Silenced coordinates that the new layers write: a query token's match, and [CLS]'s average."""

BALLAST, BALLAST_SIZE = (223, 319), 100.0
"""Silenced coordinates that outweigh all others in layer 7's norms. The norms then only scale."""

MATCHING, POOLING = 8, 4
"""Numbers of layer 7's heads that match tokens, and that compare with the document's mean."""

SHARPNESS, THRESHOLD = 8.0, 7.5
"""Attention logits in matching heads: of two equal states, and of [CLS]. See RESULTS.md."""

POOLED = 1.0
"""Weight of the similarity with the document's mean, relative to that of matches."""

MASS = 0.4
"""Score that a match gets in addition to its similarity."""

WEIGHT = 0.5
"""Weight of the states found in the document, relative to the query token's own state."""

SMALL = 0.4
"""Input scale that is small enough for gelu(x) + gelu(-x) to act as a square."""


def blank(layer: Any) -> None:
    """Clear a layer so that only its residual path remains."""
    for parameter in layer.parameters():
        parameter.zero_()
    layer.attention.output.LayerNorm.weight.fill_(1)
    layer.output.LayerNorm.weight.fill_(1)


def match_layer(layer: Any, sample: Sample) -> None:
    """Set layer 7, and move ``sample`` through it.

    For each query token, attention adds ``found`` to the token's own coordinates: the mean of the
    document's states weighted by attention, times the attention that the document received. The
    feed-forward layer squares the sum: |token + WEIGHT * found|^2 = |token|^2 +
    2 WEIGHT token . found + a small term. Because of the ballast, the norm between the two scales
    all tokens alike. In the pooling heads, ``found`` is the plain mean.
    """
    query_flag, _, first_flag = sample.flags
    attention, output = layer.attention.self, layer.attention.output
    axes = principal_axes(sample)
    hands = [*dealt(axes, MATCHING), *dealt(axes, POOLING)]
    first = sample.hidden[:, 0].mean(0)
    matching = sample.hidden[sample.ordinary] @ axes[: MATCHING * CONTENT].T
    energy = matching.pow(2).sum(1).mean() / MATCHING
    scale = math.sqrt(SHARPNESS * math.sqrt(HEAD_SIZE) / energy)
    apart = math.sqrt(ISOLATION * math.sqrt(HEAD_SIZE))
    threshold = THRESHOLD * math.sqrt(HEAD_SIZE)
    for head, hand in enumerate(hands):
        pooling = head >= MATCHING
        rows = slice(head * HEAD_SIZE, head * HEAD_SIZE + CONTENT)
        alone, sink = head * HEAD_SIZE + CONTENT, head * HEAD_SIZE + CONTENT + 1
        attention.query.bias[alone] = apart
        attention.key.weight[alone, query_flag] = -apart / FLAG
        attention.query.bias[sink] = 1.0
        attention.key.weight[sink, first_flag] = -threshold if pooling else threshold
        # As a key and a value, [CLS] contributes nothing but its flag.
        attention.value.weight[rows] = hand
        attention.value.weight[rows, first_flag] = -hand @ first
        if pooling:
            output.dense.weight[:, rows] = WEIGHT * POOLED * MATCHING / HEADS * hand.T
            continue
        attention.query.weight[rows] = scale * hand
        attention.key.weight[rows] = scale * hand
        attention.key.weight[rows, first_flag] = -scale * hand @ first
        attention.value.weight[alone, first_flag] = -1.0
        attention.value.bias[alone] = 1.0
        output.dense.weight[:, rows] = WEIGHT * hand.T
        output.dense.weight[MATCHED, alone] = MASS / MATCHING
    context, _ = attend(attention, sample.hidden, sample.mask)
    between = weigh_down(output, context[sample.real], sample.hidden[sample.real])
    square(layer, sample, 1 / (2 * WEIGHT * MATCHING * energy))
    middle = layer.intermediate(between)
    layer.output.dense.bias[MATCHED] -= layer.output.dense(middle)[sample.queries, MATCHED].mean()
    sample.hidden = scatter(weigh_down(layer.output, middle, between), sample)


def principal_axes(sample: Sample) -> torch.Tensor:
    """Return (HIDDEN, HIDDEN): rows are the states' principal axes, largest variance first."""
    states = sample.hidden[sample.real & (sample.batch.segments != FIRST)].clone()
    states[:, [*sample.flags, *SILENCED]] = 0
    axes: torch.Tensor = torch.linalg.eigh(states.T @ states).eigenvectors.flip(1).T
    return axes


def dealt(axes: torch.Tensor, hands: int) -> torch.Tensor:
    """Return (hands, CONTENT, HIDDEN): the first axes, dealt out back and forth."""
    order = torch.arange(hands * CONTENT).view(CONTENT, hands)
    order[1::2] = order[1::2].flip(1)
    return axes[order.T.reshape(-1)].view(hands, CONTENT, HIDDEN)


def weigh_down(output: Any, into: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Add the ballast to the output of ``output``'s dense layer, and remove it after the norm.

    Returns: The output of the norm, which leaves all other coordinates unchanged.
    """
    places = list(BALLAST)
    output.dense.bias[places] = torch.tensor([1.0, -1.0]) * BALLAST_SIZE
    summed = output.dense(into) + residual
    output.LayerNorm.weight.fill_(summed.std(1, unbiased=False).mean())
    output.LayerNorm.weight[places] = 0
    passed: torch.Tensor = output.LayerNorm(summed)
    return passed


def square(layer: Any, sample: Sample, factor: Any) -> None:
    """Add ``factor`` times the squared length of the state to MATCHED.

    For small x, gelu(x) + gelu(-x) is close to sqrt(2 / pi) x^2.
    """
    content = [place for place in range(HIDDEN) if place not in (*sample.flags, *SILENCED)]
    count = len(content)
    middle = layer.intermediate.dense
    middle.weight[range(count), content] = SMALL
    middle.weight[range(count, 2 * count), content] = -SMALL
    layer.output.dense.weight[MATCHED, : 2 * count] = factor / (SMALL**2 * math.sqrt(2 / math.pi))


def read_layer(layer: Any, sample: Sample) -> None:
    """Set layer 8, and move ``sample`` through it."""
    attention, output = layer.attention.self, layer.attention.output
    strength = math.sqrt(4 * ISOLATION * math.sqrt(HEAD_SIZE))
    for head in range(HEADS):
        alone = head * HEAD_SIZE + CONTENT
        attention.query.bias[alone] = strength
        # Flags vary a little between tokens, zeros do not. So document tokens, which have a flag,
        # get a penalty, and query tokens, which have none, get nothing.
        attention.key.weight[alone, sample.flags[1]] = -strength / FLAG
        attention.value.weight[head * HEAD_SIZE, MATCHED] = 1.0
        output.dense.weight[ANSWER, head * HEAD_SIZE] = 1.0 / HEADS
    advance(layer, sample, [MATCHED, ANSWER])


def advance(layer: Any, sample: Sample, written: Sequence[int]) -> None:
    """Set a new layer's norms to keep all coordinates but ``written``; move ``sample`` through."""
    wanted = sample.hidden[sample.real]
    context, _ = attend(layer.attention.self, sample.hidden, sample.mask)
    into = layer.attention.output.dense(context)[sample.real] + wanted
    keep(layer.attention.output.LayerNorm, into, wanted, written)
    between = layer.attention.output.LayerNorm(into)
    keep(layer.output.LayerNorm, between, wanted, written)
    sample.hidden = scatter(layer.output.LayerNorm(between), sample)


def keep(norm: Any, into: torch.Tensor, wanted: torch.Tensor, written: Sequence[int]) -> None:
    """Fit ``norm`` to return ``wanted``, by least squares for each coordinate.

    Args:
        written: Coordinates with new content, which pass the norm unchanged.
    """
    standard = layer_norm(into, (HIDDEN,))
    for place in range(HIDDEN):
        known = torch.stack([standard[:, place], torch.ones(len(into))], 1)
        gain, shift = torch.linalg.lstsq(known, wanted[:, place]).solution.tolist()
        constant = bool(wanted[:, place].std() < 1e-3)
        norm.weight[place], norm.bias[place] = (0.0, 0.0) if constant else (gain, shift)
    for place in written:
        norm.weight[place], norm.bias[place] = into.std(1).mean(), 0.0


def read_head(model: Any, sample: Sample) -> None:
    """Set pooler and classifier. The pooler passes on [CLS]'s average in the nearly linear range of
    tanh; the logits get a standard deviation of 2."""
    summary = sample.hidden[:, 0, ANSWER]
    model.bert.pooler.dense.weight.zero_()
    model.bert.pooler.dense.bias.zero_()
    model.classifier.weight.zero_()
    slope = 0.3 / summary.std()
    model.bert.pooler.dense.weight[0, ANSWER] = slope
    model.bert.pooler.dense.bias[0] = -slope * summary.mean()
    model.classifier.weight[0, 0] = 2 / 0.3
    model.classifier.bias.zero_()
