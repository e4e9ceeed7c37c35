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
import time
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.progress import track
from torch.nn.functional import cross_entropy, kl_div, log_softmax

from serve_app.engine.embedded.model import ADAPTER, load
from training.data import ENCODER, SETS, tokenizer
from training.groups import Group, Material, Options, drawn, read, teacher_of
from training.upper import late_interaction, logits

mpl.use("Agg")
from matplotlib import pyplot as plt

CHECKPOINT_S = 120.0
LEVEL = 0.2
"""Weight of a query's mean difference in the loss; differences within a query have weight 1."""

TRAINED = ("bert.encoder.layer.6.", "bert.encoder.layer.7.", "bert.pooler.", "classifier.")

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
