"""Train layers 7 and 8 and the head of the constructed cross-encoder.

    python -m training.train --out var/training/run

Each step takes some questions, each with its answer and negatives: the set's own, the encoder's
best by cosine, and random ones. The loss is a listwise cross-entropy (or pairwise logistic) loss of
the labels plus the divergence from the teachers' scores of the same list. The main teacher is late
interaction of the encoder's states, which ranks better than this model before training. Linear
layers train low-rank adapters (PEFT); biases and norms train in full.
"""

import copy
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softplus
from transformers import AutoModelForSequenceClassification

from benchmarks.quality.ranking import ndcg
from serve_app.domain.ranking import rank
from training.lists import HELD_OUT, Material, candidates, draw, mine
from training.run import Options, Run, arguments, fit
from training.states import Development, TrainingSet, load_development, load_sets
from training.teachers import TEACHERS, score, teach
from training.upper import logits

Scorer = Callable[[TrainingSet | Development, int, Sequence[int]], torch.Tensor]
"""Returns scores of a question's documents."""


def score_one(
    model: Any, texts: TrainingSet | Development, index: int, places: Sequence[int]
) -> torch.Tensor:
    """A `Scorer` for ``model``'s upper layers."""
    documents = [texts.documents[place] for place in places]
    scores: torch.Tensor = logits(model, [texts.queries[index]] * len(places), documents)
    return scores


def loss_of(scores: torch.Tensor, taught: torch.Tensor, options: Options) -> torch.Tensor:
    """Return the loss of lists that start with the answer.

    Args:
        taught: The teachers' scores of the same lists.
    """
    if options.loss == "listwise":
        labels = cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64))
    else:
        labels = softplus(scores[:, 1:] - scores[:, :1]).mean()
    student, wanted = log_softmax(scores, 1), log_softmax(taught, 1)
    divergence = kl_div(student, wanted, reduction="batchmean", log_target=True)
    return (1 - options.teacher_weight) * labels + options.teacher_weight * divergence


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def judge(scorer: Scorer, development: Development, every: int = 1) -> float:
    """Return the mean NDCG@10 over one in ``every`` queries of the judged collection."""
    values, start = [], 0
    for index, judged in enumerate(development.judged):
        places = range(start, start + len(judged.docids))
        start = places.stop
        if index % every:
            continue
        scores = scorer(development, index, places).tolist() if places else []
        order = rank(scores, top_n=None)
        values.append(ndcg(judged, tuple(judged.docids[place] for place in order)))
    return sum(values) / len(values)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def held_out_rank(
    scorer: Scorer, sets: dict[str, Material], options: Options, questions: int = 40
) -> float:
    """Return the answers' MRR over held-out questions, at most ``questions`` per set."""
    rng, values = random.Random(1), []
    for material in sets.values():
        for index in range(0, len(material.texts.queries), HELD_OUT)[:questions]:
            listed = candidates(material, index, options.negatives, options.mined, rng)
            scores = scorer(material.texts, index, listed)
            values.append(1 / (1 + int((scores[1:] >= scores[0]).sum())))
    return sum(values) / len(values)


def adapted(model: Any, options: Options) -> Any:
    """Add adapters to the chosen layers of ``model``.

    Their biases and norms, the classifier and the pooler's bias are trained in full.
    """
    wrapped = get_peft_model(
        model,
        LoraConfig(
            r=options.rank,
            lora_alpha=options.rank,
            target_modules=rf".*layer\.[{options.layers}]\..*(query|key|value|dense)",
        ),
    )
    places = tuple(f"layer.{each}." for each in options.layers)
    for name, parameter in wrapped.named_parameters():
        vector = name.endswith("bias") or "LayerNorm" in name
        if "lora_" not in name:
            parameter.requires_grad = (vector and any(each in name for each in places)) or (
                "classifier" in name or "pooler.dense.bias" in name
            )
    return wrapped


def train(start: Path, states: Path, out: Path, options: Options) -> None:
    torch.manual_seed(options.seed)
    sets = {name: mine(each) for name, each in load_sets(states).items()}
    development = load_development(states)
    teacher = AutoModelForSequenceClassification.from_pretrained(start).eval()
    student = adapted(copy.deepcopy(teacher), options).eval()
    inner = student.base_model.model
    scorer = partial(score_one, inner)

    def loss(step: int) -> torch.Tensor:
        lists = draw(sets, options, step)
        with torch.no_grad():
            taught = teach(teacher, options, lists)
        return loss_of(score(inner, lists), taught, options)

    def scores() -> dict[str, float]:
        return {
            "held_out_mrr": held_out_rank(scorer, sets, options),
            "ndcg": judge(scorer, development),
        }

    fit(Run(student, loss, scores), out, options)


def main() -> None:
    chosen = arguments("Train the upper layers.", Options, Path("var/training/run"), TEACHERS)
    train(chosen.start, chosen.states, chosen.out, chosen.options)


if __name__ == "__main__":
    main()
