"""Train layers 7 and 8 and the head of the embedded cross-encoder, on cached states.

    python -m training.train --data var/training/data --out var/training/run

The teacher is late interaction of the encoder's states plus their cosine. A step takes queries and
documents on one topic and some others, and scores every pair. The loss compares the student with
the teacher, and a little with the labels. A pair's score says little about its single tokens, so
a linear probe of the states after layer 7 also learns how well each query token matches. The probe
is dropped at the end.

A stopped run continues from its last checkpoint, which is at most two minutes old. Its folder
shows losses and development scores (``log.jsonl``, ``curves.png``). The development scores are
means over all sets.
"""

import argparse
import json
import math
import time
from dataclasses import asdict, fields
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
import torch
from rich.progress import track
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from serve_app.engine.embedded.model import ADAPTER, load
from training.data import ENCODER, SETS, tokenizer
from training.groups import Group, Material, Options, Teacher, drawn, read, teacher_of
from training.upper import HIDDEN, compared, late_interaction, logits, matches, padded, read_out

mpl.use("Agg")
from matplotlib import pyplot as plt

CHECKPOINT_S = 120.0
LEVEL = 0.2
"""Weight of a query's mean difference in the loss; differences within a query have weight 1."""

TRAINED = ("bert.encoder.layer.6.", "bert.encoder.layer.7.", "bert.pooler.", "classifier.")

FIRST_GROUPS = 12
"""Groups that are read before the first step, for the teacher's scale and for the probe."""

RIDGE = 1e-3
"""Share of the mean variance that is added to the variances when the probe is fitted."""

DEVELOPMENT_QUERIES, DEVELOPMENT_DOCUMENTS = 24, 60
"""About as many queries, and so many documents, of each set count for the development scores."""


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


def words(real: torch.Tensor) -> torch.Tensor:
    """Return which rows of `compared` are of words, that is, neither of [CLS] nor of [SEP]."""
    inner = torch.arange(real.shape[1]) < real.sum(1, keepdim=True) - 1
    inner[:, 0] = False
    return inner[real]


def deviations(values: torch.Tensor) -> torch.Tensor:
    """Return the differences of each query token's values from their mean over the documents."""
    return values - values.mean(0)


@torch.no_grad()  # type: ignore[untyped-decorator]  # torch is Any to mypy here
def probe_of(model: Any, groups: list[Group]) -> Any:
    """Return a linear layer that tells from a row after layer 7 how well its token matches."""
    left, right = torch.zeros(HIDDEN, HIDDEN).double(), torch.zeros(HIDDEN).double()
    for group in groups:
        query = padded(group.queries)
        rows = compared(model, query, group.documents).rows[:, words(query.mask)]
        states = deviations(rows).flatten(0, 1).double()
        left += states.T @ states
        right += states.T @ deviations(matches(group.queries, group.documents)).flatten().double()
    ridge = RIDGE * left.diagonal().mean() * torch.eye(HIDDEN)
    probe = torch.nn.Linear(HIDDEN, 1, bias=False)
    probe.weight[0] = torch.linalg.solve(left + ridge, right).float()
    return probe


def losses_of(model: Any, group: Group, teacher: Teacher, options: Options) -> tuple[Any, Any]:
    """Return the loss of a step, and the share of the matches' variance that the probe misses."""
    query = padded(group.queries)
    with torch.autocast("cpu", torch.bfloat16):
        pairs = compared(model, query, group.documents)
        scores = read_out(model, pairs, query.mask).T.float()
    wanted = deviations(matches(group.queries, group.documents))
    found = deviations(model.probe(pairs.rows[:, words(query.mask)].float())[..., 0])
    missed = (found - wanted).pow(2).mean() / wanted.pow(2).mean()
    loss = loss_of(scores, teacher(group), group, options.labels)
    return loss + options.matches * missed, missed.detach()


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
    first = [drawn(sets, options, -1 - place) for place in range(FIRST_GROUPS)]
    teacher = teacher_of(first, options)
    model = load(ENCODER, start).eval()
    model.probe = probe_of(model, first)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith((*TRAINED, "probe."))
    weights = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=options.learning_rate, weight_decay=0.0)
    done = resume(out / "checkpoint.pt", model, optimizer)
    seen: list[tuple[float, float]] = []
    saved_at = time.monotonic()
    every = max(options.steps // options.evaluations, 1)
    for step in track(range(done, options.steps + 1), out.name):
        if step % every == 0:
            loss, missed = map(mean, zip(*seen, strict=True)) if seen else (None, None)
            scores = develop(model, development)
            record(out, {"step": step, "loss": loss, "missed": missed, **scores})
            seen.clear()
        if step == options.steps:
            break
        optimizer.param_groups[0]["lr"] = options.learning_rate * rate(step, options.steps)
        optimizer.zero_grad()
        loss_now, missed_now = losses_of(model, drawn(sets, options, step), teacher, options)
        loss_now.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        seen.append((loss_now.item(), missed_now.item()))
        if time.monotonic() - saved_at > CHECKPOINT_S:
            keep(out / "checkpoint.pt", step + 1, model, optimizer)
            saved_at = time.monotonic()
    del model.probe
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
    for name in entry.keys() - {"step", "loss", "missed"}:
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
