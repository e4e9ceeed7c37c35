"""The load of a run: what is sent, when, and for whom."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from loadtests.arrivals import Schedule, generated, replayed
from loadtests.lengths import MS_MARCO, lengths
from loadtests.shapes import SHAPES, Shape

TRACE = "trace"
"""The class of all requests of a replayed trace."""

TIERS = ("default", "priority", "flex")

Shares = tuple[tuple[str, float], ...]
"""Names with their shares, which add up to 1."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The options of a run that define its load. All processes derive the same schedule from it."""

    rate_per_s: float = 10.0
    """Requests/s of all classes at the shape's factor 1."""

    sizes: Shares = (("5", 0.5), ("50", 0.375), ("500", 0.125))
    """Documents per request, with the share of the requests."""

    pair_tokens: str = MS_MARCO
    cv: float = 1.0
    """Coefficient of variation of the gaps between arrivals of a class."""

    shape: str = "constant"
    peak_factor: float = 3.0
    duration_s: float = 60.0
    warm_up_s: float = 0.0
    """Time from the start that the figures leave out."""

    tiers: Shares = ()
    """Service tiers with the share of the requests; none for the server's default."""

    trace: Path | None = None
    """A trace to replay, instead of `rate_per_s`, `sizes`, `cv` and `shape`."""

    seed: int = 1

    def __post_init__(self) -> None:
        """Raises: ValueError: A value is out of its range."""
        for valid, problem in (
            (self.rate_per_s > 0, "the rate must be positive"),
            (self.cv >= 0, "the coefficient of variation cannot be negative"),
            (self.shape in SHAPES, f"the shape must be one of {', '.join(SHAPES)}"),
            (self.peak_factor >= 1, "the peak factor is at least 1"),
            (self.duration_s > 0, "the run time must be positive"),
            (0 <= self.warm_up_s < self.duration_s, "the warm-up must be shorter than the run"),
            (
                all(name.isdecimal() and int(name) > 0 for name, _ in self.sizes),
                "sizes are positive numbers of documents",
            ),
            (all(name in TIERS for name, _ in self.tiers), f"tiers are {', '.join(TIERS)}"),
        ):
            if not valid:
                raise ValueError(problem)
        lengths(self.pair_tokens)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"trace": None if self.trace is None else str(self.trace)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read the result of `as_json`, also after its tuples have become lists."""
        tuples = {name: tuple(map(tuple, data[name])) for name in ("sizes", "tiers")}
        trace = None if data["trace"] is None else Path(data["trace"])
        return cls(**{**data, **tuples, "trace": trace})

    @property
    def classes(self) -> list[str]:
        """The names of the classes of requests, in the order of their indices."""
        if self.trace is not None:
            return [TRACE]
        return [f"{size} documents" for size, _ in self.sizes]

    def schedule(self) -> Schedule:
        """Raises: ValueError: The trace cannot be read."""
        if self.trace is not None:
            return replayed(self.trace, self.duration_s)
        shape = Shape(self.shape, self.duration_s, self.peak_factor)
        rates = [(int(size), share * self.rate_per_s) for size, share in self.sizes]
        return generated(shape, rates, self.cv, self.seed)

    def tenants_and_tiers(self, requests: int, tenants: int) -> NDArray[np.int64]:
        """Return the index of the tenant and of the tier of each request, as two rows."""
        random = np.random.default_rng([self.seed, 1])
        chosen = random.integers(tenants, size=requests)
        shares = [share for _, share in self.tiers] or [1.0]
        return np.array([chosen, random.choice(len(shares), size=requests, p=shares)])


def shares(text: str) -> Shares:
    """Read names with weights, such as ``5:80,50:20``; a name without a weight has the weight 1.

    Raises: ValueError: A weight is not a positive number, or a name is repeated.
    """
    pairs = [part.strip().partition(":") for part in text.split(",") if part.strip()]
    try:
        weights = {name.strip(): float(weight or 1) for name, _, weight in pairs}
    except ValueError:
        raise ValueError(
            f"{text!r} is not a list of names and weights such as 5:80,50:20"
        ) from None
    if not pairs or len(weights) < len(pairs) or min(weights.values()) <= 0:
        raise ValueError(f"{text!r} needs different names with positive weights")
    total = sum(weights.values())
    if not math.isfinite(total):
        raise ValueError(f"{text!r} needs finite weights")
    return tuple((name, weight / total) for name, weight in weights.items())
