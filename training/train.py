"""Train layers 7 and 8 and the head of the embedded cross-encoder, on cached states.

    python -m training.train --data var/training/data --out var/training/run

The teacher is late interaction of the encoder's states plus their cosine. A step takes queries and
documents on one topic and some others, and scores every pair. The loss compares the student with
the teacher, and a little with the labels.

A stopped run continues from its last checkpoint, which is at most two minutes old. Its folder
shows losses and development scores (``log.jsonl``, ``curves.png``). The development scores are
means over all sets.
"""

import argparse
import json
import math
import random
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.progress import track
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from serve_app.engine.embedded.model import ADAPTER, load
from training.data import ENCODER, SETS, Texts, tokenizer
from training.upper import late_interaction, logits, means

mpl.use("Agg")
from matplotlib import pyplot as plt

CHECKPOINT_S = 120.0
NEAR = 0.6
"""Share of a step's queries, and of its documents, that are on one topic."""

CUT = 0.3
"""Share of the documents that lose their end."""

DEVIATION = 2.0
"""Standard deviation of the teacher's scores of one query's documents."""

LEVEL = 0.2
"""Weight of a query's mean difference in the loss; differences within a query have weight 1."""

TRAINED = ("bert.encoder.layer.6.", "bert.encoder.layer.7.", "bert.pooler.", "classifier.")

DEVELOPMENT_QUERIES, DEVELOPMENT_DOCUMENTS = 24, 60
"""About as many queries, and so many documents, of each set count for the development scores."""

ALIKE = 0.85
"""Cosine from which a document may be an answer too, such as the same text on another site."""


@dataclass(frozen=True)
class Options:
    """Options of a run; each field is an option of the command. See RESULTS.md."""

    steps: int = 240
    queries: int = 10
    documents: int = 32
    learning_rate: float = 2e-4
    cosine: float = 0.25
    """Weight of the cosine in the teacher, relative to late interaction."""

    length: float = 0.02
    """Factor on the logarithm of a document's tokens, which is taken from late interaction."""

    labels: float = 0.1
    """Weight of the labels in the loss."""

    seed: int = 0
    evaluations: int = 4


@dataclass(frozen=True, slots=True)
class Material:
    """A set: query ``i`` belongs to document ``answers[i]``."""

    queries: Texts
    documents: Texts
    answers: torch.Tensor
    asked: torch.Tensor
    """Bool: whether the query is a question of the set."""

    query_means: torch.Tensor
    document_means: torch.Tensor


def read(path: Path) -> Material:
    held = torch.load(path, weights_only=True)
    queries, documents = Texts(*held["queries"]), Texts(*held["documents"])
    return Material(
        queries,
        documents,
        torch.tensor(held["answers"]),
        torch.tensor(held["asked"]),
        means([queries[place] for place in range(len(queries))]),
        means([documents[place] for place in range(len(documents))]),
    )


@dataclass(frozen=True, slots=True)
class Group:
    """Queries and documents of one step."""

    queries: list[torch.Tensor]
    documents: list[torch.Tensor]
    answers: torch.Tensor
    """Of each query: the place of its answer."""

    asked: torch.Tensor
    """Bool: whether the query is a question of its set."""

    alike: torch.Tensor
    """(queries, documents) bool: whether a document other than the answer may be one too."""


def spearman(one: torch.Tensor, other: torch.Tensor) -> float:
    return correlation(one.argsort().argsort().float(), other.argsort().argsort().float())


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.float(), other.float()]))[0, 1])


def gain(scores: torch.Tensor, answer: int) -> float:
    """Return NDCG@10 with a single relevant document."""
    place = int((scores >= scores[answer]).sum())
    return 1 / math.log2(1 + place) if place <= 10 else 0.0


def reported(
    scores: torch.Tensor, late: torch.Tensor, answers: torch.Tensor, lengths: torch.Tensor
) -> dict[str, float]:
    """Return a set's development scores.

    Args:
        scores: (queries, documents), and likewise ``late``, those of late interaction.
        answers: Of each query: the place of its answer.
        lengths: Numbers of tokens of the documents.
    """
    long = lengths >= lengths.median()
    count = range(len(scores))
    return {
        "ndcg": sum(gain(scores[i], int(answers[i])) for i in count) / len(scores),
        "length": sum(correlation(scores[i], lengths) for i in count) / len(scores),
        "late": sum(spearman(scores[i], late[i]) for i in count) / len(scores),
        "late_long": sum(spearman(scores[i, long], late[i, long]) for i in count) / len(scores),
    }


def drawn(sets: dict[str, Material], options: Options, step: int) -> Group:
    """Draw the group of a step. It depends only on seed and step, also after a resume.

    Most queries resemble a first one; their answers and the documents nearest to the first query
    by cosine are on its topic. The others are from any set. Some documents lose their end, so that
    short and long documents compete.
    """
    rng = random.Random(f"{options.seed} {step}")
    name = rng.choice(list(sets))
    own = sets[name]
    first = rng.randrange(len(own.queries))
    near = closest(own.query_means, own.query_means[first], 4 * options.queries)
    queries = [(name, first)]
    while len(queries) < options.queries:
        queries += another(sets, name, near, "queries", rng, queries)
    documents = list(
        dict.fromkeys((each, int(sets[each].answers[place])) for each, place in queries)
    )
    near = closest(own.document_means, own.query_means[first], 2 * options.documents)
    while len(documents) < options.documents:
        documents += another(sets, name, near, "documents", rng, documents)
    answers = [documents.index((each, int(sets[each].answers[place]))) for each, place in queries]
    vectors = torch.stack([sets[each].document_means[place] for each, place in documents])
    alike = vectors[answers] @ vectors.T > ALIKE
    for row, answer in enumerate(answers):
        each, place = documents[answer]
        alike[row] |= torch.tensor([document == (each, place + 1) for document in documents])
        alike[row, answer] = False
    return Group(
        [sets[each].queries[place] for each, place in queries],
        [shortened(sets[each].documents[place], rng) for each, place in documents],
        torch.tensor(answers),
        torch.tensor([bool(sets[each].asked[place]) for each, place in queries]),
        alike,
    )


def closest(states: torch.Tensor, to: torch.Tensor, count: int) -> list[int]:
    """Return the places of the mean states with the largest cosines."""
    found: list[int] = (states @ to).topk(min(count, len(states))).indices.tolist()
    return found


def another(
    sets: dict[str, Material],
    name: str,
    near: list[int],
    kind: str,
    rng: random.Random,
    known: list[tuple[str, int]],
) -> list[tuple[str, int]]:
    """Draw a set and a place in it: in ``near`` of the set ``name``, or anywhere.

    Returns: Nothing if it is among ``known``.
    """
    picked = name if rng.random() < NEAR else rng.choice(list(sets))
    places = near if picked == name else range(len(getattr(sets[picked], kind)))
    found = picked, rng.choice(places)
    return [] if found in known else [found]


def shortened(states: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """Cut the end of some documents, but keep [SEP]."""
    if rng.random() > CUT or len(states) < 20:
        return states
    return torch.cat([states[: rng.randint(10, len(states) - 1)], states[-1:]])


@dataclass(frozen=True, slots=True)
class Teacher:
    """Late interaction plus cosine, scaled by constants, so that a pair's score depends on it only.

    More tokens offer more chances of a match, so late interaction grows with a document's length;
    a part of this is taken away.

    On average over queries, scores have `DEVIATION`, and zero is halfway between a query's own
    document and the others.
    """

    late: float
    cosine: float
    length: float
    middle: float

    def __call__(self, group: Group) -> torch.Tensor:
        """Return (queries, documents)."""
        late = late_interaction(group.queries, group.documents)
        cosines = means(group.queries) @ means(group.documents).T
        tokens = torch.tensor([len(document) for document in group.documents])
        late -= self.length * tokens.log()
        return self.late * late + self.cosine * cosines - self.middle


def teacher_of(sets: dict[str, Material], options: Options, groups: int = 12) -> Teacher:
    """Measure the teacher's scale on some groups."""
    drawn_groups = [drawn(sets, options, -1 - place) for place in range(groups)]

    def shape(teacher: Teacher) -> tuple[float, float]:
        scores = [teacher(group) for group in drawn_groups]
        own = [s.gather(1, g.answers[:, None]) for s, g in zip(scores, drawn_groups, strict=True)]
        middle = (torch.cat(own).mean() + torch.cat(scores).mean()) / 2
        return float(torch.cat(scores).std(1).mean()), float(middle)

    late, cosine = (
        shape(Teacher(*each, options.length, 0.0))[0] for each in ((1.0, 0.0), (0.0, 1.0))
    )
    raw = Teacher(1 / late, options.cosine / cosine, options.length, 0.0)
    deviation, middle = shape(raw)
    factor = DEVIATION / deviation
    return Teacher(raw.late * factor, raw.cosine * factor, options.length, middle * factor)


def loss_of(scores: torch.Tensor, wanted: torch.Tensor, group: Group, labels: float) -> Any:
    """Return the loss: differences from the teacher, divergence of the rankings, and labels."""
    difference = scores - wanted
    level = difference.mean(1, keepdim=True)
    distance = (difference - level).pow(2).mean() + LEVEL * level.pow(2).mean()
    student, best = log_softmax(scores, 1), log_softmax(wanted, 1)
    divergence = kl_div(student, best, reduction="batchmean", log_target=True)
    judged = scores.masked_fill(group.alike, -1e4)[group.asked]
    loss = 0.5 * distance + divergence
    if len(judged):
        loss = loss + labels * cross_entropy(judged, group.answers[group.asked])
    return loss


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def develop(model: Any, development: dict[str, Material]) -> dict[str, float]:
    """Return the development scores of ``model``, means over the sets."""
    found = []
    for material in development.values():
        documents = [material.documents[place] for place in range(len(material.documents))]
        documents = documents[:DEVELOPMENT_DOCUMENTS]
        known = (material.answers < len(documents)).nonzero()[:, 0].tolist()
        asked = known[:: max(1, len(known) // DEVELOPMENT_QUERIES)]
        queries = [material.queries[place] for place in asked]
        with torch.autocast("cpu", torch.bfloat16):
            scores = logits(model, queries, documents)
        lengths = torch.tensor([len(document) for document in documents])
        late = late_interaction(queries, documents)
        found.append(reported(scores, late, material.answers[asked], lengths))
    return {name: sum(each[name] for each in found) / len(found) for name in found[0]}


def rate(step: int, steps: int) -> float:
    """Return the factor on the learning rate.

    It warms up over a twentieth of the steps, then falls to 0.02 along a cosine.
    """
    warm = steps / 20
    if step < warm:
        return (step + 1) / warm
    return 0.02 + 0.49 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def train(data: Path, start: Path, out: Path, options: Options) -> None:
    """Train to the end, from the last checkpoint in ``out`` if there is one."""
    torch.manual_seed(options.seed)
    sets = {name: read(data / f"training-{name}.pt") for name in SETS}
    development = {name: read(data / f"development-{name}.pt") for name in SETS}
    teacher = teacher_of(sets, options)
    model = load(ENCODER, start).eval()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith(TRAINED)
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.0)
    done = resume(out / "checkpoint.pt", model, optimizer)
    losses: list[float] = []
    saved_at = time.monotonic()
    every = max(options.steps // options.evaluations, 1)
    for step in track(range(done, options.steps + 1), out.name):
        if step % every == 0:
            scores = develop(model, development)
            loss = sum(losses) / len(losses) if losses else None
            record(out, {"step": step, "loss": loss, **scores})
            losses.clear()
        if step == options.steps:
            break
        optimizer.param_groups[0]["lr"] = options.learning_rate * rate(step, options.steps)
        optimizer.zero_grad()
        group = drawn(sets, options, step)
        with torch.autocast("cpu", torch.bfloat16):
            found = logits(model, group.queries, group.documents)
        loss_now = loss_of(found, teacher(group), group, options.labels)
        loss_now.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        losses.append(loss_now.item())
        if time.monotonic() - saved_at > CHECKPOINT_S:
            keep(out / "checkpoint.pt", step + 1, model, optimizer)
            saved_at = time.monotonic()
    model.save_pretrained(out / "model")
    tokenizer().save_pretrained(out / "model")


def keep(path: Path, step: int, model: Any, optimizer: Any) -> None:
    """Write a checkpoint atomically."""
    partial = path.with_suffix(".partial")
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, partial)
    partial.rename(path)


def resume(path: Path, model: Any, optimizer: Any) -> int:
    """Load the checkpoint if there is one; return the next step."""
    if not path.exists():
        return 0
    held = torch.load(path, weights_only=True)
    model.load_state_dict(held["model"])
    optimizer.load_state_dict(held["optimizer"])
    return int(held["step"])


def record(out: Path, entry: dict[str, Any]) -> None:
    """Add an entry to the log, and plot the log: the loss above, development scores below."""
    log = out / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    entries = [each for each in map(json.loads, lines) if each["step"] < entry["step"]]
    entries.append(entry)
    log.write_text("".join(json.dumps(each) + "\n" for each in entries), encoding="utf-8")
    figure, (above, below) = plt.subplots(2, sharex=True)
    steps = [each["step"] for each in entries]
    above.plot(steps, [each["loss"] for each in entries], label="loss")
    for name in entry.keys() - {"step", "loss"}:
        below.plot(steps, [each[name] for each in entries], label=name)
    below.set_xlabel("step")
    above.legend()
    below.legend()
    figure.savefig(out / "curves.png")
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the upper layers.")
    parser.add_argument("--data", type=Path, default=Path("var/training/data"))
    parser.add_argument("--start", type=Path, default=ADAPTER, help="adapter to continue from")
    parser.add_argument("--out", type=Path, default=Path("var/training/run"))
    for each in fields(Options):
        name = f"--{each.name.replace('_', '-')}"
        parser.add_argument(name, type=type(each.default), default=each.default)
    chosen = parser.parse_args()
    options = Options(**{each.name: getattr(chosen, each.name) for each in fields(Options)})
    stated, settings = json.dumps(asdict(options)), chosen.out / "options.json"
    chosen.out.mkdir(parents=True, exist_ok=True)
    if settings.exists() and settings.read_text(encoding="utf-8") != stated:
        parser.error(f"{chosen.out} holds a run with other options")
    settings.write_text(stated, encoding="utf-8")
    train(chosen.data, chosen.start, chosen.out, options)


if __name__ == "__main__":
    main()
