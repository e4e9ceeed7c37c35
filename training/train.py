"""Train layers 7 and 8 and the head of the constructed cross-encoder.

    python -m training.train --out var/training/run

Each step takes some questions, each with its answer and texts that are no answer: the set's own,
the encoder's best by cosine, and random ones. Loss: listwise cross-entropy (or pairwise logistic)
of the labels, and divergence from what teachers make of the same list, above all late interaction
of the encoder's states, which ranks better than this model before training. Weights change by
low-rank adapters (PEFT) on the linear layers, biases and norms freely. A run that stopped goes on
from its last checkpoint, at most five minutes back; ``log.jsonl`` and ``curves.png`` in the run's
folder show losses and development scores as they come.
"""

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from peft import LoraConfig, get_peft_model
from rich.progress import track
from torch.nn.functional import cross_entropy, kl_div, log_softmax, normalize, softplus
from transformers import AutoModelForSequenceClassification

from benchmarks.quality import ndcg
from serve_app.domain.ranking import rank
from training.construct import save
from training.states import (
    Development,
    Texts,
    TrainingSet,
    load_development,
    load_sets,
    write,
)  # fmt: skip
from training.upper import logits

mpl.use("Agg")
from matplotlib import pyplot as plt

SHARES = {
    "squad-v1.1-train": 0.5,
    "medquad": 0.15,
    "clapnq-dev": 0.15,
    "scifact-train": 0.1,
    "pubmedqa-l": 0.1,
}
"""Of the questions of a step."""

HELD_OUT = 20
"""Each so manieth question of a set is for development."""

MINED = 30
"""Texts that the encoder by cosine finds best are candidates for negatives."""

ALIKE = 0.85
"""Cosine above which a mined text may be an answer too, as the same text at another site."""

TOKEN_SHARPNESS = 20.0
"""Of late interaction: what cosines are times in the log-sum-exp."""

CHECKPOINT_S = 300.0


@dataclass(frozen=True)
class Options:
    """What distinguishes runs; each field is an option of the command. See RESULTS.md."""

    steps: int = 1_500
    queries: int = 4
    negatives: int = 15
    rank: int = 32
    layers: str = "67"
    learning_rate: float = 5e-4
    loss: str = "listwise"
    teacher: str = "late"
    """Names of `TEACHERS`, joined by +."""

    teacher_weight: float = 0.9
    mined: float = 0.6
    """Share of negatives that is mined, as far as there are any; the set's own come first."""

    seed: int = 0
    evaluations: int = 15


@dataclass(frozen=True, slots=True)
class Material:
    """A set and what was mined for each of its questions."""

    texts: TrainingSet
    mined: list[list[int]]
    means: tuple[torch.Tensor, torch.Tensor]
    """Normalised mean states of queries and documents."""

    trained: list[int]
    """Questions that are not held out."""


Lists = Sequence[tuple[Material, int, list[int]]]
"""Questions, each with the documents that are compared, its answer first."""

Scorer = Callable[[TrainingSet | Development, int, Sequence[int]], torch.Tensor]
"""Scores of a question's documents."""


@dataclass(frozen=True, slots=True)
class Run:
    """A student, what it learns from, and how well it does."""

    student: Any
    loss_of: Callable[[int], torch.Tensor]
    """Of a step."""

    scores: Callable[[], dict[str, float]]
    """On what is kept for development."""


def means(texts: Texts) -> torch.Tensor:
    """(N, HIDDEN): mean states, of length 1."""
    return normalize(torch.stack([texts[index].float().mean(0) for index in range(len(texts))]))


def mine(texts: TrainingSet) -> Material:
    """Negatives by the encoder's cosine."""
    queries, documents = means(texts.queries), means(texts.documents)
    mined = []
    for query, positive in zip(queries, texts.positives, strict=True):
        best = (documents @ query).topk(min(MINED, len(documents))).indices
        alike = documents[best] @ documents[positive]
        mined.append([int(place) for place in best[alike < ALIKE]])
    trained = [index for index in range(len(texts.queries)) if index % HELD_OUT]
    return Material(texts, mined, (queries, documents), trained)


def candidates(
    material: Material, index: int, negatives: int, mined: float, rng: random.Random
) -> list[int]:
    """Documents for question ``index``, its answer first.

    Raises: ValueError when the set has too few.
    """
    texts = material.texts
    if len(texts.documents) <= negatives:
        raise ValueError(f"{negatives} negatives of {len(texts.documents)} documents")
    answer = texts.positives[index]
    # Some sets name a text twice, or the answer itself.
    own = [place for place in dict.fromkeys(texts.negatives[index]) if place != answer]
    chosen = [answer, *own[: negatives // 3]]
    rest = [place for place in material.mined[index] if place not in chosen]
    chosen += rng.sample(rest, min(len(rest), round(negatives * mined)))
    chosen = chosen[: negatives + 1]
    while len(chosen) < negatives + 1:
        other = rng.randrange(len(texts.documents))
        if other not in chosen:
            chosen.append(other)
    return chosen


def teach(teacher: Any, options: Options, lists: Lists) -> torch.Tensor:
    """(Q, 1 + negatives): the teachers' scores, each list with a spread of 2."""
    scores = torch.zeros(len(lists), options.negatives + 1)
    for name in options.teacher.split("+"):
        scores += standard(TEACHERS[name](teacher, lists))
    return 2 * standard(scores)


def cosines(lists: Lists) -> torch.Tensor:
    """(Q, 1 + negatives): of mean states."""
    return torch.stack(
        [
            material.means[1][documents] @ material.means[0][index]
            for material, index, documents in lists
        ]
    )


def late_interaction(lists: Lists) -> torch.Tensor:
    """(Q, 1 + negatives): of each query token with its like in the document, a soft maximum."""
    scores = []
    for material, index, documents in lists:
        # Without [CLS] and the two [SEP], which find themselves in every document.
        query = normalize(material.texts.queries[index][1:-1].float(), dim=1)
        for place in documents:
            document = normalize(material.texts.documents[place][:-1].float(), dim=1)
            found = (TOKEN_SHARPNESS * query @ document.T).logsumexp(1) / TOKEN_SHARPNESS
            scores.append(found.mean())
    return torch.stack(scores).view(len(lists), -1)


def standard(scores: torch.Tensor) -> torch.Tensor:
    """Each row with mean 0 and deviation 1."""
    return (scores - scores.mean(1, keepdim=True)) / scores.std(1, keepdim=True).clamp(min=1e-6)


def score(model: Any, lists: Lists) -> torch.Tensor:
    """(Q, 1 + negatives) logits."""
    queries, documents = [], []
    for material, index, places in lists:
        queries += [material.texts.queries[index]] * len(places)
        documents += [material.texts.documents[place] for place in places]
    scores: torch.Tensor = logits(model, queries, documents)
    return scores.view(len(lists), -1)


TEACHERS: dict[str, Callable[[Any, Lists], torch.Tensor]] = {
    "start": score,
    "cosine": lambda _, lists: cosines(lists),
    "late": lambda _, lists: late_interaction(lists),
}
"""Each from the states of texts encoded apart."""


def score_one(
    model: Any, texts: TrainingSet | Development, index: int, places: Sequence[int]
) -> torch.Tensor:
    """A `Scorer` for ``model``'s upper layers."""
    documents = [texts.documents[place] for place in places]
    scores: torch.Tensor = logits(model, [texts.queries[index]] * len(places), documents)
    return scores


def loss_of(scores: torch.Tensor, taught: torch.Tensor, options: Options) -> torch.Tensor:
    """Of lists whose first document is the answer."""
    if options.loss == "listwise":
        labels = cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64))
    else:
        labels = softplus(scores[:, 1:] - scores[:, :1]).mean()
    student, wanted = log_softmax(scores, 1), log_softmax(taught, 1)
    divergence = kl_div(student, wanted, reduction="batchmean", log_target=True)
    return (1 - options.teacher_weight) * labels + options.teacher_weight * divergence


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def judge(scorer: Scorer, development: Development, every: int = 1) -> float:
    """NDCG@10 on each so manieth query of the judged collection."""
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
    """MRR of the answer in lists of questions that training never sees, so many of a set."""
    rng, values = random.Random(1), []
    for material in sets.values():
        for index in range(0, len(material.texts.queries), HELD_OUT)[:questions]:
            listed = candidates(material, index, options.negatives, options.mined, rng)
            scores = scorer(material.texts, index, listed)
            values.append(1 / (1 + int((scores[1:] >= scores[0]).sum())))
    return sum(values) / len(values)


def adapted(model: Any, options: Options) -> Any:
    """``model`` with adapters; the chosen layers' biases and norms, pooler and classifier free."""
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


def trained(model: Any) -> dict[str, Any]:
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def train(start: Path, states: Path, out: Path, options: Options) -> None:
    """A run of the upper layers."""
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


def fit(run: Run, out: Path, options: Options) -> None:
    """From the last checkpoint in ``out``, or the start, to the end."""
    weights = trained(run.student)
    optimizer = torch.optim.AdamW(weights.values(), lr=options.learning_rate, weight_decay=0.0)
    checkpoint, log = out / "checkpoint.pt", out / "log.jsonl"
    done, losses = resume(checkpoint, weights, optimizer)
    forget(log, done)
    saved_at = time.monotonic()
    every = max(options.steps // options.evaluations, 1)
    for step in track(range(done, options.steps + 1), out.name):
        if step % every == 0:
            loss = sum(losses) / len(losses) if losses else None
            with log.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"step": step, "loss": loss, **run.scores()}) + "\n")
            losses.clear()
            plot(log, out / "curves.png")
        if step == options.steps:
            break
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rate(step, options.steps)
        optimizer.zero_grad()
        of_step = run.loss_of(step)
        of_step.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
        optimizer.step()
        losses.append(of_step.item())
        if time.monotonic() - saved_at > CHECKPOINT_S:
            keep(checkpoint, step + 1, weights, optimizer, losses)
            saved_at = time.monotonic()
    keep(checkpoint, options.steps, weights, optimizer, losses)
    save(run.student.merge_and_unload(), out / "model")


def draw(
    sets: dict[str, Material], options: Options, step: int
) -> list[tuple[Material, int, list[int]]]:
    """The lists of one step; the same for the same seed and step, however often resumed."""
    rng = random.Random(f"{options.seed} {step}")
    lists = []
    for name in rng.choices(list(SHARES), list(SHARES.values()), k=options.queries):
        material = sets[name]
        index = rng.choice(material.trained)
        listed = candidates(material, index, options.negatives, options.mined, rng)
        lists.append((material, index, listed))
    return lists


def rate(step: int, steps: int) -> float:
    """Warm up over a twentieth, then a cosine down to a twentieth."""
    warm = steps / 20
    if step < warm:
        return (step + 1) / warm
    return 0.05 + 0.475 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def keep(
    path: Path, step: int, weights: dict[str, Any], optimizer: Any, losses: list[float]
) -> None:
    """A checkpoint.

    Args:
        losses: Of the steps that the log does not hold yet.
    """
    data = {name: each.data for name, each in weights.items()}
    state = optimizer.state_dict()
    write(path, {"step": step, "optimizer": state, "weights": data, "losses": losses})


def resume(path: Path, weights: dict[str, Any], optimizer: Any) -> tuple[int, list[float]]:
    """The step to go on with, and the losses that the log does not hold."""
    if not path.exists():
        return 0, []
    held = torch.load(path, weights_only=True)
    for name, parameter in weights.items():
        parameter.data.copy_(held["weights"][name])
    optimizer.load_state_dict(held["optimizer"])
    return int(held["step"]), held["losses"]


def forget(log: Path, step: int) -> None:
    """Drop what was logged at ``step`` or later: it will be again."""
    if not log.exists():
        return
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] < step]
    log.write_text("".join(kept), encoding="utf-8")


def plot(log: Path, picture: Path) -> None:
    """Losses above, development scores below."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    steps = [entry["step"] for entry in entries]
    figure, (above, below) = plt.subplots(2, sharex=True)
    above.plot(steps, [entry["loss"] for entry in entries], label="loss")
    for name in entries[0].keys() - {"step", "loss"}:
        below.plot(steps, [entry[name] for entry in entries], label=name)
    below.set_xlabel("step")
    above.legend()
    below.legend()
    figure.savefig(picture)
    plt.close(figure)


def arguments(description: str, kind: type[Options], out: Path) -> argparse.Namespace:
    """The command line: three folders, and ``options``, which a begun run must share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--start", type=Path, default=Path("var/training/start"))
    parser.add_argument("--states", type=Path, default=Path("var/training/states"))
    parser.add_argument("--out", type=Path, default=out)
    for field in fields(kind):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default
        )
    chosen = parser.parse_args()
    options = kind(**{field.name: getattr(chosen, field.name) for field in fields(kind)})
    unknown = sorted(set(options.teacher.split("+")) - TEACHERS.keys())
    if unknown:
        parser.error(f"unknown teacher {unknown[0]!r}; known: {', '.join(TEACHERS)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    stated = json.dumps(vars(options))
    settings = chosen.out / "options.json"
    if settings.exists() and settings.read_text(encoding="utf-8") != stated:
        parser.error(f"{chosen.out} holds a run with other options")
    settings.write_text(stated, encoding="utf-8")
    chosen.options = options
    return chosen


def main() -> None:
    chosen = arguments("Train the upper layers.", Options, Path("var/training/run"))
    train(chosen.start, chosen.states, chosen.out, chosen.options)


if __name__ == "__main__":
    main()
