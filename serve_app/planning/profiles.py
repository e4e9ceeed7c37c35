"""What a plan starts from: the traffic, and the speeds of scorers, gateways and the database."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from serve_app.domain.units import Seconds

PAIR_TOKENS = 67.0
"""Mean length of a pair of MS MARCO, which the published speeds refer to."""

PAIR_TOKENS_CV = 0.4
"""Coefficient of variation of these lengths."""

PAIR_TOKENS_MAX = 512

BATCH_S, START_S = Seconds(0.002), Seconds(60)
REQUEST_S, DOCUMENT_S = Seconds(0.0032), Seconds(0.000_022)
TRANSIT_S = CALL_S = Seconds(0.004)
"""Used where nothing was measured. `Scorer` and `Gateway` explain them."""


class ProfileError(ValueError):
    """A profile that cannot be used. The message is one sentence for the operator."""


def _above_0(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ProfileError(f"The {name} must be above 0, not {value:g}.")


def _not_negative(name: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ProfileError(f"The {name} must not be negative, but one is {value:g}.")


class Basis(StrEnum):
    """Where the speed of a scorer comes from."""

    MEASURED = "measured"
    PUBLISHED = "published, not measured here"
    SCALED = "scaled from a published speed, not measured"


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests that a service must answer."""

    requests_per_s: float
    documents: Mapping[int, float]
    """Number of documents of a request, and the share of requests with it."""

    pair_tokens: float = PAIR_TOKENS
    """Mean tokens of a query with one document."""

    pair_tokens_cv: float = PAIR_TOKENS_CV
    """Coefficient of variation of these tokens; 0 if all are equal."""

    burstiness: float = 1.0
    """Coefficient of variation of the times between requests: 1 is a Poisson process."""

    def __post_init__(self) -> None:
        """Raises: ProfileError."""
        _above_0("requests per second", self.requests_per_s)
        _above_0("tokens of a pair", self.pair_tokens)
        _above_0("burstiness", self.burstiness)
        if not 0 <= self.pair_tokens_cv <= 2:
            raise ProfileError("The variation of the tokens must be from 0 to 2.")
        if not self.documents:
            raise ProfileError("The traffic has no requests.")
        for size, share in self.documents.items():
            if size < 1:
                raise ProfileError("A request has at least one document.")
            _above_0("share of requests", share)

    @property
    def shares(self) -> dict[int, float]:
        """The shares of the sizes, which add up to 1."""
        total = sum(self.documents.values())
        return {size: share / total for size, share in self.documents.items()}

    @property
    def documents_per_request(self) -> float:
        return sum(size * share for size, share in self.shares.items())

    @property
    def documents_per_s(self) -> float:
        return self.requests_per_s * self.documents_per_request

    @property
    def tokens_per_s(self) -> float:
        return self.documents_per_s * self.pair_tokens


@dataclass(frozen=True, slots=True)
class Scorer:
    """The speed of one scorer."""

    name: str
    basis: Basis
    source: str
    speeds: tuple[tuple[float, float], ...]
    """Mean tokens of a pair and tokens per second at this length, shortest first. Between two
    lengths the speed is interpolated; outside of them it is that of the nearest."""

    batch_s: Seconds = BATCH_S
    """Time that every batch takes in addition to its tokens."""

    start_s: Seconds = START_S
    """Time from the decision to start a scorer until it computes, if its node already runs."""

    def __post_init__(self) -> None:
        """Raises: ProfileError."""
        if not self.speeds:
            raise ProfileError(f"The profile of {self.name} has no speed.")
        for tokens, speed in self.speeds:
            _above_0("tokens of a pair", tokens)
            _above_0("tokens per second", speed)
        for seconds in (self.batch_s, self.start_s):
            _not_negative("times of a scorer", seconds)

    def tokens_per_s(self, pair_tokens: float) -> float:
        """Return the speed for pairs of this length."""
        lengths = [tokens for tokens, _ in self.speeds]
        after = bisect_left(lengths, pair_tokens)
        if after == 0 or after == len(lengths):
            return self.speeds[min(after, len(lengths) - 1)][1]
        (short, low), (long, high) = self.speeds[after - 1 : after + 1]
        return low + (high - low) * (pair_tokens - short) / (long - short)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The work of one gateway, whose process uses one core."""

    request_s: Seconds = REQUEST_S
    """CPU time of a request, in addition to that of its documents."""

    document_s: Seconds = DOCUMENT_S
    """CPU time of a document."""

    transit_s: Seconds = TRANSIT_S
    """Time that a request spends in HAProxy and in the network."""

    call_s: Seconds = CALL_S
    """Time that a call of a scorer takes in both directions, without the scorer's work."""

    source: str = (
        "benchmarks.service.gpu_overhead, 2 cores of an AMD EPYC; transit and calls are estimates"
    )

    def __post_init__(self) -> None:
        """Raises: ProfileError."""
        for seconds in (self.request_s, self.document_s, self.transit_s, self.call_s):
            _not_negative("times of a gateway", seconds)

    def cpu_s(self, documents: float) -> Seconds:
        return Seconds(self.request_s + documents * self.document_s)


@dataclass(frozen=True, slots=True)
class Database:
    """The work of the ledger's database."""

    name: str
    transaction_s: Seconds
    """Time of a transaction in addition to its writes: round trips, and the flush to the disk."""

    write_s: Seconds
    """Time of one core for one write. A request writes twice: a reservation and a charge."""

    source: str

    def __post_init__(self) -> None:
        """Raises: ProfileError."""
        for seconds in (self.transaction_s, self.write_s):
            _not_negative("times of a database", seconds)


WRITES_PER_REQUEST = 2

LEDGER_SOURCE = "benchmarks.ledger.throughput, 1 and 64 callers on 2 cores of an AMD EPYC"
POSTGRESQL = Database("PostgreSQL", Seconds(0.0014), Seconds(0.000_17), LEDGER_SOURCE)
SQLITE = Database("SQLite", Seconds(0.0003), Seconds(0.000_09), LEDGER_SOURCE)


@dataclass(frozen=True, slots=True)
class Service:
    """The speeds of all parts of a service."""

    scorer: Scorer
    gateway: Gateway = field(default_factory=Gateway)
    database: Database = POSTGRESQL
