"""When requests are due: a schedule that does not depend on the server's answers.

Gaps between arrivals are gamma distributed. Their coefficient of variation (CV) sets the
burstiness: 1 is a Poisson process, 3 comes in bursts, and 0 has equal gaps. A shape changes the
rate over time by stretching the gaps.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtests.lengths import OTHER_TOKENS
from loadtests.shapes import Shape

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PAIR_TOKENS_MIN = math.ceil(OTHER_TOKENS + 1)

BURN_IN_GAPS = 50
"""Length of the discarded start, in mean gaps times the squared CV (at least 1). Without it, the
process would begin with a complete gap, and have about (CV^2 - 1) / 2 more arrivals than its rate
gives."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """The requests of a run in order of time. All fields have one value for each request."""

    at_s: Floats
    """Time since the start of the run."""

    documents: Integers
    classes: Integers
    """Index of the request's class."""

    pair_tokens: Floats
    """Tokens of each of the request's pairs; 0 where the lengths come from the distribution."""

    def __len__(self) -> int:
        return len(self.at_s)


def unit_arrivals(cv: float, until: float, random: np.random.Generator) -> Floats:
    """Return arrivals in ``[0, until)`` of a stationary process with rate 1."""
    if cv == 0:
        return np.arange(0.5, until)
    square = cv**2
    begin = BURN_IN_GAPS * max(1.0, square)
    at = 0.0
    parts = []
    while at < begin + until:
        count = int(until + begin) + 100
        arrivals = at + np.cumsum(random.gamma(1 / square, square, count))
        parts.append(arrivals)
        at = float(arrivals[-1])
    times = np.concatenate(parts) - begin
    return times[(times >= 0) & (times < until)]


def generated(shape: Shape, rates: Sequence[tuple[int, float]], cv: float, seed: int) -> Schedule:
    """Return the arrivals of one independent process for each class.

    Args:
        rates: For each class, the documents of a request and the requests/s at factor 1.
    """
    seeds = np.random.SeedSequence(seed).spawn(len(rates))
    times = [
        shape.times_of(unit_arrivals(cv, rate * shape.area_s, np.random.default_rng(each)) / rate)
        for (_, rate), each in zip(rates, seeds, strict=True)
    ]
    counts = [len(each) for each in times]
    at_s = np.concatenate(times)
    order = np.argsort(at_s, kind="stable")
    classes = np.repeat(np.arange(len(rates)), counts)[order]
    documents = np.array([size for size, _ in rates], dtype=np.int64)[classes]
    return Schedule(at_s[order], documents, classes, np.zeros(len(at_s)))


def replayed(trace: Path, duration_s: float) -> Schedule:
    """Read a trace: a CSV file with the columns ``at_s`` and ``documents``, in order of time.

    The optional column ``pair_tokens`` has the tokens of each of the request's pairs. Times count
    from the first request. Requests after ``duration_s`` are left out.

    Raises: ValueError: The file is not such a trace.
    """
    try:
        with trace.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        at_s = np.array([float(row["at_s"]) for row in rows])
        documents = np.array([int(row["documents"]) for row in rows], dtype=np.int64)
        tokens = np.array([float(row.get("pair_tokens") or 0) for row in rows])
    except KeyError as error:
        raise ValueError(f"the trace {trace} has no column {error}") from None
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"the trace {trace} cannot be read: {error}") from None
    if not len(at_s):
        raise ValueError(f"the trace {trace} has no requests")
    is_finite = np.all(np.isfinite(at_s)) and np.all(np.isfinite(tokens))
    if not is_finite or min(np.diff(at_s, prepend=at_s[0]).min(), tokens.min()) < 0:
        raise ValueError(
            f"the trace {trace} is invalid: times must not decrease, and lengths not be negative"
        )
    if documents.min() < 1:
        raise ValueError(f"the trace {trace} has a request without documents")
    at_s = at_s - at_s[0]
    kept = at_s < duration_s
    tokens = np.where(tokens > 0, np.maximum(_rounded(tokens), PAIR_TOKENS_MIN), 0.0)
    return Schedule(at_s[kept], documents[kept], np.zeros(kept.sum(), dtype=np.int64), tokens[kept])


def _rounded(tokens: Floats) -> Floats:
    """Round lengths to eight per octave, so that few pools of texts suffice."""
    eighths = np.round(8 * np.log2(np.maximum(tokens, 1)))
    return np.round(2 ** (eighths / 8))
