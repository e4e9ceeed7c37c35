"""Tune all eight layers on whole pairs, as the service computes them.

    python -m training.tune --start var/training/run/model --out var/training/tuned

`train` uses states of separately encoded texts. In the whole model, a query's states vary slightly
with the document in the pair. So here the lower layers train too, at a low rate. The loss is that
of `train`, with a teacher that reads the texts separately, plus the distance of layer six's states
from those of the separate texts. Lists, checkpoints, ``log.jsonl`` and ``curves.png`` are the same
as in `train`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import mse_loss
from transformers import AutoModelForSequenceClassification

from training.data import Ids, collate
from training.lists import Lists, draw, mine
from training.run import Options, Run, arguments, fit
from training.states import LOWER, Development, TrainingSet, load_development, load_sets
from training.teachers import TEACHERS, teach
from training.train import adapted, held_out_rank, judge, loss_of

BATCH = 8
"""Pairs per forward pass, padded to one length."""

HELD_OUT_QUESTIONS, JUDGED_EVERY = 16, 3
"""Development data of a run: held-out questions per set, and one in this many judged queries."""


@dataclass(frozen=True)
class TuneOptions(Options):
    """Options of a run over all layers, with other defaults than `train`."""

    steps: int = 800
    negatives: int = 7
    rank: int = 8
    layers: str = "01234567"
    learning_rate: float = 1e-4
    evaluations: int = 5
    states_weight: float = 10.0
    """Weight of the distance of layer six's states, relative to the rest of the loss."""


@dataclass(frozen=True, slots=True)
class Whole:
    """The model's output for pairs, in their order."""

    logits: torch.Tensor
    """(P,): one logit per pair."""

    states: list[torch.Tensor]
    """(L, HIDDEN) for each pair: its tokens' states after layer six."""


def whole(model: Any, pairs: Sequence[tuple[Ids, Ids]]) -> Whole:
    """Run pairs through all layers, in batches of similar length."""
    order = sorted(range(len(pairs)), key=lambda index: -sum(map(len, pairs[index])))
    logits = [torch.empty(0)] * len(pairs)
    states = list(logits)
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        batch = collate([pairs[index] for index in chosen])
        made = model(**batch.inputs, output_hidden_states=True)
        for index, logit, hidden, real in zip(
            chosen, made.logits[:, 0], made.hidden_states[LOWER], batch.real, strict=True
        ):
            logits[index], states[index] = logit, hidden[real]
    return Whole(torch.stack(logits), states)


def pairs_of(
    texts: TrainingSet | Development, index: int, places: Sequence[int]
) -> list[tuple[Ids, Ids]]:
    """Return the token ids of a question with each document, without special tokens."""
    query = texts.queries.tokens(index)[1:-1]
    return [(query, texts.documents.tokens(place)[:-1]) for place in places]


def score_whole(
    model: Any, texts: TrainingSet | Development, index: int, places: Sequence[int]
) -> torch.Tensor:
    """A `Scorer` for the whole model."""
    return whole(model, pairs_of(texts, index, places)).logits


def strayed(states: Sequence[torch.Tensor], lists: Lists) -> torch.Tensor:
    """Return the mean squared distance of ``states`` from those of the separately encoded texts.

    Queries have the same weight as documents, although documents are longer.
    """
    apart = [
        (material.texts.queries[index], material.texts.documents[place])
        for material, index, places in lists
        for place in places
    ]
    distances = [
        mse_loss(together[: len(query)], query.float())
        + mse_loss(together[len(query) :], document.float())
        for together, (query, document) in zip(states, apart, strict=True)
    ]
    return torch.stack(distances).mean() / 2


def tune(start: Path, states: Path, out: Path, options: TuneOptions) -> None:
    torch.manual_seed(options.seed)
    sets = {name: mine(each) for name, each in load_sets(states).items()}
    development = load_development(states)
    teacher = AutoModelForSequenceClassification.from_pretrained(start).eval()
    student = adapted(copy.deepcopy(teacher), options).eval()
    inner = student.base_model.model
    scorer = partial(score_whole, inner)

    def loss(step: int) -> torch.Tensor:
        lists = draw(sets, options, step)
        with torch.no_grad():
            taught = teach(teacher, options, lists)
        pairs = [
            pair for each, index, places in lists for pair in pairs_of(each.texts, index, places)
        ]
        made = whole(inner, pairs)
        ranked = loss_of(made.logits.view(taught.shape), taught, options)
        return ranked + options.states_weight * strayed(made.states, lists)

    def scores() -> dict[str, float]:
        return {
            "held_out_mrr": held_out_rank(scorer, sets, options, HELD_OUT_QUESTIONS),
            "ndcg": judge(scorer, development, JUDGED_EVERY),
        }

    fit(Run(student, loss, scores), out, options)


def main() -> None:
    chosen = arguments("Tune all layers.", TuneOptions, Path("var/training/tuned"), TEACHERS)
    tune(chosen.start, chosen.states, chosen.out, chosen.options)


if __name__ == "__main__":
    main()
