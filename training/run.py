"""A training run: its options, its steps, and its files.

A stopped run continues from its last checkpoint, which is at most five minutes old. During the run,
``log.jsonl`` and ``curves.png`` in its folder show losses and development scores. The caller
supplies model, loss and scores.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from rich.progress import track

from training.construct import save
from training.states import write

mpl.use("Agg")
from matplotlib import pyplot as plt

CHECKPOINT_S = 300.0


@dataclass(frozen=True)
class Options:
    """Options of a run; each field is an option of the command. See RESULTS.md."""

    steps: int = 1_500
    queries: int = 4
    negatives: int = 15
    rank: int = 32
    layers: str = "67"
    learning_rate: float = 5e-4
    loss: str = "listwise"
    teacher: str = "late"
    """Names of `training.teachers.TEACHERS`, joined by +."""

    teacher_weight: float = 0.9
    mined: float = 0.6
    """Largest share of mined negatives. The set's own negatives come first."""

    seed: int = 0
    evaluations: int = 15


@dataclass(frozen=True, slots=True)
class Run:
    """A student model, its loss and its development scores."""

    student: Any
    loss_of: Callable[[int], torch.Tensor]
    """Return the loss of a step."""

    scores: Callable[[], dict[str, float]]
    """Return the scores on the development data."""


def arguments(
    description: str, kind: type[Options], out: Path, teachers: Collection[str]
) -> argparse.Namespace:
    """Parse the command line: three folders, and the fields of ``kind`` as ``options``.

    Exits with an error if ``out`` holds a run with other options.

    Args:
        teachers: Names that ``--teacher`` accepts, joined by +.
    """
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
    unknown = sorted(set(options.teacher.split("+")) - set(teachers))
    if unknown:
        parser.error(f"unknown teacher {unknown[0]!r}; known: {', '.join(teachers)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    stated = json.dumps(vars(options))
    settings = chosen.out / "options.json"
    if settings.exists() and settings.read_text(encoding="utf-8") != stated:
        parser.error(f"{chosen.out} holds a run with other options")
    settings.write_text(stated, encoding="utf-8")
    chosen.options = options
    return chosen


def trained(model: Any) -> dict[str, Any]:
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def fit(run: Run, out: Path, options: Options) -> None:
    """Train to the end, from the last checkpoint in ``out`` if there is one."""
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


def rate(step: int, steps: int) -> float:
    """Return the factor on the learning rate.

    It warms up over a twentieth of the steps, then falls to 0.05 along a cosine.
    """
    warm = steps / 20
    if step < warm:
        return (step + 1) / warm
    return 0.05 + 0.475 * (1 + math.cos(math.pi * (step - warm) / (steps - warm)))


def keep(
    path: Path, step: int, weights: dict[str, Any], optimizer: Any, losses: list[float]
) -> None:
    """Write a checkpoint.

    Args:
        losses: The losses of the steps that are not in the log yet.
    """
    data = {name: each.data for name, each in weights.items()}
    state = optimizer.state_dict()
    write(path, {"step": step, "optimizer": state, "weights": data, "losses": losses})


def resume(path: Path, weights: dict[str, Any], optimizer: Any) -> tuple[int, list[float]]:
    """Load the checkpoint; return the next step, and the losses that are not in the log yet."""
    if not path.exists():
        return 0, []
    held = torch.load(path, weights_only=True)
    for name, parameter in weights.items():
        parameter.data.copy_(held["weights"][name])
    optimizer.load_state_dict(held["optimizer"])
    return int(held["step"]), held["losses"]


def forget(log: Path, step: int) -> None:
    """Drop log entries of ``step`` and later, because the run will write them again."""
    if not log.exists():
        return
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] < step]
    log.write_text("".join(kept), encoding="utf-8")


def plot(log: Path, picture: Path) -> None:
    """Plot losses in the upper diagram, development scores in the lower."""
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
