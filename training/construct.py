"""A cross-encoder that ranks like its encoder before any training: weights set by linear algebra.

    python -m training.construct --data ../shared/data/train --out var/training/start

An encoder with random cross-attention forgets what it knew of meaning. So nothing here is random:

    layers 1-6   the encoder's own. Two of the 384 hidden coordinates, the least used, become flags
                 (query segment, document segment), fed by the token types and read by two of the 32
                 dimensions of each head: query and document do not see each other, both see [CLS],
                 [CLS] sees itself. Each token's state is what the encoder gives the text alone.
                 In layer 6, three coordinates in which this encoder writes how little a token
                 matters (the layer norm then shrinks the rest) are silenced: all states have one
                 length, and their products are cosines.
                 A feed-forward unit that did little now fires at [CLS] only and gives it a flag.
    layer 7      match: each query token looks for its like in the document. Query, key, value and
                 output projections are one rotation of the states, so an attention logit is a
                 similarity in 30 of the dimensions and what is found is added to the token's own
                 state; [CLS] is the alternative to attend to, and gives nothing. The feed-forward
                 layer squares: |token + w found|^2 is 2 w (token . found), but for what is the
                 same for all documents. To it comes the attention that the document got.
    layer 8      read: [CLS] averages that over the query's tokens.
    head         scales it to a logit.

That is a soft form of late interaction's MaxSim (Khattab and Zaharia, 2020, ColBERT), inside a
plain `BertForSequenceClassification`. Statistics come from a seeded sample of training pairs.
"""

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import layer_norm
from transformers import AutoModel, BertConfig, BertForSequenceClassification

from training.data import (
    DOCUMENT,
    ENCODER,
    FIRST,
    QUERY,
    SEP,
    Batch,
    as_searched,
    collate,
    read_set,
    token_ids,
    tokenizer,
)  # fmt: skip

HIDDEN, HEADS, HEAD_SIZE = 384, 12, 32
CONTENT = HEAD_SIZE - 2
"""Dimensions of a head that compare meaning; the other two read flags."""

SILENCED = (127, 223, 319)
"""Where this encoder's last layer norm has a gain of zero."""

MATCHED, ANSWER = 127, 223
"""Silenced coordinates that the new layers write: a query token's match; [CLS]'s summary."""

FLAG = 4.0
"""A flag's value in every layer's input; states have about 0.6 a coordinate."""

FLAG_IN_EMBEDDINGS = 0.1
ISOLATION = 16.0
"""What an attention logit between the segments loses."""

SILENCE = 0.1
"""What is left of the silenced coordinates before the last layer norm: its scale is then even."""

BALLAST, BALLAST_SIZE = (223, 319), 100.0
"""Silenced coordinates that outweigh all others in layer 7's norms, so that these only scale."""

MATCHING, POOLING = 8, 4
"""Heads of layer 7 that match tokens, and that compare with the document's mean."""

SHARPNESS, THRESHOLD = 8.0, 7.5
"""Of a match: logit of two equal states, and of [CLS]. See RESULTS.md."""

FIRST_BEFORE = 15.0
"""[CLS]'s flag before layer 6's last norm; after it, it is 1."""

GATE = 40.0
"""Slope of a feed-forward unit that is active at [CLS] only."""

POOLED = 1.0
"""Weight of the similarity with the document's mean, against that of matches."""

MASS = 0.4
"""What a match is worth for being one, beside its similarity."""

WEIGHT = 0.5
"""Of what was found in the document, against the query token's own state."""

SMALL = 0.4
"""Scale at which the activation still squares."""


@dataclass
class Sample:
    """Training pairs as they flow through the layers that are done."""

    batch: Batch
    mask: torch.Tensor
    """(B, 1, 1, L): padding is not attended to."""

    apart: torch.Tensor
    """(B, 1, L, L): the isolation that the construction imitates."""

    hidden: torch.Tensor
    """(B, L, HIDDEN): input of the next layer."""

    flags: list[int]
    """Coordinates of the query's and the document's flag, and of [CLS]'s after layer 6."""

    @property
    def real(self) -> torch.Tensor:
        return self.batch.real

    @property
    def ordinary(self) -> torch.Tensor:
        """(B, L) bool: tokens of the texts."""
        return self.real & (self.batch.input_ids != SEP) & (self.batch.segments != FIRST)

    @property
    def queries(self) -> torch.Tensor:
        """(T,) bool over the real tokens: the queries', without special ones."""
        return (self.ordinary & (self.batch.segments == QUERY))[self.real]

    def where(self, segment: int) -> torch.Tensor:
        """(T,) bool over the real tokens."""
        return self.batch.segments[self.real] == segment


def sample_pairs(root: Path, count: int = 192) -> Batch:
    """Questions with their paragraph or another one, of different lengths."""
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
    """(B, 1, L, L): 0 where a token may look, else a large negative number."""
    segments = batch.segments
    allowed = segments[:, :, None] == segments[:, None, :]
    allowed[:, :, 0] = True
    allowed &= batch.real[:, None, :]
    return torch.where(allowed, 0.0, -1e4)[:, None]


def least_used(encoder: Any, batch: Batch, apart: torch.Tensor) -> list[int]:
    """The three coordinates that carry the least variance into the layers' products."""
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
    """Type 1 becomes like type 0, which the encoder was trained with, but for the flags."""
    query, document, _ = flags
    words = embeddings.word_embeddings.weight
    types = embeddings.token_type_embeddings.weight
    types[1] = types[0]
    for table in (words, embeddings.position_embeddings.weight, types):
        table[:, flags[:2]] = 0
    types[0, query] = types[1, document] = FLAG_IN_EMBEDDINGS
    words[tokenizer().cls_token_id, query] = -FLAG_IN_EMBEDDINGS


def restore_flags(norm: Any, into: torch.Tensor, sample: Sample) -> torch.Tensor:
    """Set ``norm`` so that flags leave it as `FLAG` and 0, and all else as without flags.

    Args:
        into: (T, HIDDEN) what the norm is given for the real tokens.

    Returns: (B, L, HIDDEN) what it then gives, padding zero.
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


def scatter(rows: torch.Tensor, sample: Sample) -> torch.Tensor:
    hidden = torch.zeros(*sample.real.shape, rows.shape[1])
    hidden[sample.real] = rows
    return hidden


def heads(states: torch.Tensor) -> torch.Tensor:
    """(B, L, HIDDEN) to (B, HEADS, L, HEAD_SIZE)."""
    return states.unflatten(2, (HEADS, HEAD_SIZE)).transpose(1, 2)


def attend(attention: Any, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[Any, Any]:
    """Context (B, L, HIDDEN) and probabilities (B, HEADS, L, L)."""
    query, key, value = (
        heads(linear(hidden)) for linear in (attention.query, attention.key, attention.value)
    )
    logits = query @ key.transpose(2, 3) / math.sqrt(HEAD_SIZE) + mask
    probabilities = logits.softmax(-1)
    return (probabilities @ value).transpose(1, 2).flatten(2), probabilities


def indicator_of(sample: Sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A direction along which [CLS] is 1 further than other tokens, which differ by some 0.04.

    Linear discriminant analysis with a little ridge.

    Returns: direction, mean state of the other tokens, state of [CLS]; each (HIDDEN,).
    """
    rest = sample.hidden[sample.real & (sample.batch.segments != FIRST)]
    first = sample.hidden[:, 0].mean(0)
    covariance = torch.cov(rest.T) + 1e-3 * torch.eye(HIDDEN)
    direction = torch.linalg.solve(covariance, first - rest.mean(0))
    return direction / (direction @ (first - rest.mean(0))), rest.mean(0), first


def least_attended(attention: Any, sample: Sample) -> list[torch.Tensor]:
    """For each head, (HEAD_SIZE, 2): directions in which queries and keys matter least.

    Tokens weigh what the attention to and from them weighs, and both segments alike.
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


def isolate(attention: Any, sample: Sample) -> None:
    """Query and document stop seeing each other; [CLS] sees only itself."""
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


def without(linear: Any, flags: list[int], mean: torch.Tensor) -> None:
    """``linear`` no longer reads the flags' coordinates; their former mean becomes bias."""
    linear.bias += linear.weight[:, flags] @ mean[flags]
    linear.weight[:, flags] = 0


def isolate_layer(layer: Any, sample: Sample, means: tuple[Any, Any], *, last: bool) -> None:
    """One of the encoder's layers; ``sample`` moves on through it.

    Args:
        means: Mean states of the untouched encoder at this layer's input and between its halves.
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


def silence(layer: Any) -> None:
    """The three coordinates stay what they were for the feed-forward layer, and hardly weigh in
    the norm after it."""
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
    """Turn the feed-forward unit that does least into one that is active at [CLS] only.

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
    """From here on [CLS] has a flag of its own, which is 0 elsewhere, and exact segment flags."""
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


def blank(layer: Any) -> None:
    """Nothing but the residual."""
    for parameter in layer.parameters():
        parameter.zero_()
    layer.attention.output.LayerNorm.weight.fill_(1)
    layer.output.LayerNorm.weight.fill_(1)


def keep(norm: Any, into: torch.Tensor, wanted: torch.Tensor, written: Sequence[int]) -> None:
    """Set ``norm`` so that it gives back ``wanted``, coordinate by coordinate, least squares.

    Args:
        written: Coordinates that hold what is new instead, and pass as they come.
    """
    standard = layer_norm(into, (HIDDEN,))
    for place in range(HIDDEN):
        known = torch.stack([standard[:, place], torch.ones(len(into))], 1)
        gain, shift = torch.linalg.lstsq(known, wanted[:, place]).solution.tolist()
        constant = bool(wanted[:, place].std() < 1e-3)
        norm.weight[place], norm.bias[place] = (0.0, 0.0) if constant else (gain, shift)
    for place in written:
        norm.weight[place], norm.bias[place] = into.std(1).mean(), 0.0


def principal_axes(sample: Sample) -> torch.Tensor:
    """(HIDDEN, HIDDEN): rows are directions of the states, the most used first."""
    states = sample.hidden[sample.real & (sample.batch.segments != FIRST)].clone()
    states[:, [*sample.flags, *SILENCED]] = 0
    axes: torch.Tensor = torch.linalg.eigh(states.T @ states).eigenvectors.flip(1).T
    return axes


def dealt(axes: torch.Tensor, hands: int) -> torch.Tensor:
    """(hands, CONTENT, HIDDEN): the first axes, dealt out to and fro."""
    order = torch.arange(hands * CONTENT).view(CONTENT, hands)
    order[1::2] = order[1::2].flip(1)
    return axes[order.T.reshape(-1)].view(hands, CONTENT, HIDDEN)


def match_layer(layer: Any, sample: Sample) -> None:
    """Layer 7; ``sample`` moves on through it.

    Attention writes what of the document is like a query token, ``found`` = probability x mean of
    the document's states, into that token's own coordinates; the feed-forward layer squares the
    sum: |token + WEIGHT * found|^2 = |token|^2 + 2 WEIGHT token . found + a little. With the
    ballast, the norm between them scales all tokens alike. The pooling heads find the plain mean.
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
        # [CLS] as a key and a value: nothing but what its flags say.
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


def weigh_down(output: Any, into: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Add the ballast to what ``output``'s dense layer gives, and take it out after the norm, which
    then passes all else as it comes. Returns: what the norm gives."""
    places = list(BALLAST)
    output.dense.bias[places] = torch.tensor([1.0, -1.0]) * BALLAST_SIZE
    summed = output.dense(into) + residual
    output.LayerNorm.weight.fill_(summed.std(1, unbiased=False).mean())
    output.LayerNorm.weight[places] = 0
    passed: torch.Tensor = output.LayerNorm(summed)
    return passed


def square(layer: Any, sample: Sample, factor: Any) -> None:
    """MATCHED gains ``factor`` x the squared length of the state: gelu(x) + gelu(-x) is near
    sqrt(2 / pi) x^2 for small x."""
    content = [place for place in range(HIDDEN) if place not in (*sample.flags, *SILENCED)]
    count = len(content)
    middle = layer.intermediate.dense
    middle.weight[range(count), content] = SMALL
    middle.weight[range(count, 2 * count), content] = -SMALL
    layer.output.dense.weight[MATCHED, : 2 * count] = factor / (SMALL**2 * math.sqrt(2 / math.pi))


def read_layer(layer: Any, sample: Sample) -> None:
    """Layer 8; ``sample`` moves on through it."""
    attention, output = layer.attention.self, layer.attention.output
    strength = math.sqrt(4 * ISOLATION * math.sqrt(HEAD_SIZE))
    for head in range(HEADS):
        alone = head * HEAD_SIZE + CONTENT
        attention.query.bias[alone] = strength
        # Flags waver a little, zeros do not: what must not be read is pushed away.
        attention.key.weight[alone, sample.flags[1]] = -strength / FLAG
        attention.value.weight[head * HEAD_SIZE, MATCHED] = 1.0
        output.dense.weight[ANSWER, head * HEAD_SIZE] = 1.0 / HEADS
    advance(layer, sample, [MATCHED, ANSWER])


def advance(layer: Any, sample: Sample, written: Sequence[int]) -> None:
    """Set a new layer's norms so that all but ``written`` passes, and move ``sample`` through."""
    wanted = sample.hidden[sample.real]
    context, _ = attend(layer.attention.self, sample.hidden, sample.mask)
    into = layer.attention.output.dense(context)[sample.real] + wanted
    keep(layer.attention.output.LayerNorm, into, wanted, written)
    between = layer.attention.output.LayerNorm(into)
    keep(layer.output.LayerNorm, between, wanted, written)
    sample.hidden = scatter(layer.output.LayerNorm(between), sample)


def read_head(model: Any, sample: Sample) -> None:
    """The pooler hands [CLS]'s summary on, in tanh's straight part; logits of a spread of 2."""
    summary = sample.hidden[:, 0, ANSWER]
    model.bert.pooler.dense.weight.zero_()
    model.bert.pooler.dense.bias.zero_()
    model.classifier.weight.zero_()
    slope = 0.3 / summary.std()
    model.bert.pooler.dense.weight[0, ANSWER] = slope
    model.bert.pooler.dense.bias[0] = -slope * summary.mean()
    model.classifier.weight[0, 0] = 2 / 0.3
    model.classifier.bias.zero_()


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def construct(root: Path) -> Any:
    """The whole model, from the encoder and a sample of the training pairs in ``root``."""
    encoder = AutoModel.from_pretrained(ENCODER, attn_implementation="eager").eval()
    config = BertConfig.from_pretrained(ENCODER, num_hidden_layers=8, num_labels=1)
    model = BertForSequenceClassification(config).eval()
    model.bert.load_state_dict(encoder.state_dict(), strict=False)
    batch = sample_pairs(root)
    apart = isolation(batch)
    means = mean_states(encoder, batch, apart)
    flags = least_used(encoder, batch, apart)

    embeddings = model.bert.embeddings
    flag_embeddings(embeddings, flags)
    mask = torch.where(batch.real, 0.0, -1e4)[:, None, None]
    sample = Sample(batch, mask, apart, torch.empty(0), flags)
    summed = (
        embeddings.word_embeddings(batch.input_ids)
        + embeddings.token_type_embeddings(batch.token_types)
        + embeddings.position_embeddings.weight[: batch.input_ids.shape[1]]
    )
    sample.hidden = restore_flags(embeddings.LayerNorm, summed[batch.real], sample)

    layers = model.bert.encoder.layer
    for number in range(6):
        isolate_layer(layers[number], sample, means[number], last=number == 5)
    for layer in layers[6:]:
        blank(layer)
    match_layer(layers[6], sample)
    read_layer(layers[7], sample)
    read_head(model, sample)
    return model


def mean_states(encoder: Any, batch: Batch, apart: torch.Tensor) -> list[tuple[Any, Any]]:
    """For each layer of the untouched encoder, mean states at its input and between its halves."""
    between: list[torch.Tensor] = []
    hooks = [
        layer.attention.output.LayerNorm.register_forward_hook(
            lambda _module, _inputs, output: between.append(output[batch.real].mean(0))
        )
        for layer in encoder.encoder.layer
    ]
    states = encoder(batch.input_ids, apart, output_hidden_states=True).hidden_states
    for hook in hooks:
        hook.remove()
    return [
        (state[batch.real].mean(0), mean) for state, mean in zip(states[:-1], between, strict=True)
    ]


def save(model: Any, folder: Path) -> None:
    """A folder that transformers loads."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Construct the untrained cross-encoder.")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--out", type=Path, default=Path("var/training/start"))
    chosen = parser.parse_args()
    torch.manual_seed(0)
    save(construct(chosen.data), chosen.out)


if __name__ == "__main__":
    main()
