"""Random requests of a traffic profile. A seed always gives the same requests."""

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from serve_app.planning.profiles import PAIR_TOKENS_MAX, Traffic

TEMPLATES = 32
"""Different requests of each size."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request and its arrival time."""

    at_s: float
    lengths: tuple[int, ...]
    """Tokens of each pair."""

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


def steady(_at_s: float) -> float:
    return 1.0


def arrivals(
    traffic: Traffic, seconds: float, seed: int, load: Callable[[float], float] = steady
) -> Iterator[Arrival]:
    """Yield the requests of ``seconds``, with gamma-distributed times between them.

    ``load`` is a factor of the requests per second at a time; it must not be 0.
    """
    source = random.Random(seed)  # noqa: S311 - a simulation
    templates = {
        size: [_lengths(source, traffic, size) for _ in range(TEMPLATES)]
        for size in traffic.documents
    }
    sizes, weights = [*traffic.documents], [*traffic.documents.values()]
    shape = traffic.burstiness**-2
    at_s = 0.0
    while True:
        gap = source.gammavariate(shape, 1 / shape)
        at_s += gap / (traffic.requests_per_s * load(at_s))
        if at_s >= seconds:
            return
        (size,) = source.choices(sizes, weights)
        yield Arrival(at_s, source.choice(templates[size]))


def _lengths(source: random.Random, traffic: Traffic, documents: int) -> tuple[int, ...]:
    """Return log-normal lengths, clipped to `PAIR_TOKENS_MAX` or to a longer mean."""
    variance = math.log(1 + traffic.pair_tokens_cv**2)
    mean = math.log(traffic.pair_tokens) - variance / 2
    longest = max(PAIR_TOKENS_MAX, math.ceil(traffic.pair_tokens))
    drawn = (source.lognormvariate(mean, math.sqrt(variance)) for _ in range(documents))
    return tuple(min(longest, max(1, round(tokens))) for tokens in drawn)
