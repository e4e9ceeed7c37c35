"""What a plan starts from: the traffic, and the speeds of scorers, gateways and the database."""

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from serve_app.domain.units import Seconds

PAIR_TOKENS = 67.0
"""Mean length of a pair of MS MARCO, as for the published speeds."""

PAIR_TOKENS_CV = 0.4
"""Coefficient of variation of these lengths."""

PAIR_TOKENS_MAX = 512

BATCH_S, START_S = Seconds(0.002), Seconds(60)
REQUEST_S, DOCUMENT_S = Seconds(0.0032), Seconds(0.000_022)
TRANSIT_S = CALL_S = Seconds(0.004)
"""Used without measurements; see `Scorer` and `Gateway`."""


class ProfileError(ValueError):
    """A profile that cannot be used. The message is a sentence for the operator."""


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
    """Shares of requests by number of documents."""

    pair_tokens: float = PAIR_TOKENS
    """Mean tokens of a query with one document."""

    pair_tokens_cv: float = PAIR_TOKENS_CV

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
        """They add up to 1."""
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
    """Mean tokens of a pair and tokens per second at this length, shortest first."""

    batch_s: Seconds = BATCH_S
    """Time of every batch in addition to its tokens."""

    start_s: Seconds = START_S
    """Time from the decision to start a scorer until it computes, on a running node."""

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
        """Interpolate between two lengths. Outside of them, return the speed of the nearest."""
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
    """CPU time of a request, without that of its documents."""

    document_s: Seconds = DOCUMENT_S

    transit_s: Seconds = TRANSIT_S
    """Time in HAProxy and in the network."""

    call_s: Seconds = CALL_S
    """Time of a scorer's call in both directions, without the scorer's work."""

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
    """Time of a transaction's round trips and flush to the disk."""

    write_s: Seconds
    """Core time of one write, which is a reservation or a charge."""

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
