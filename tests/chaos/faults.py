"""Plans of faults: kinds, order and times. A seed always gives the same plan."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Protocol

from serve_app.domain.units import Moment

SQLITE, POSTGRESQL = "sqlite", "postgresql"
PAUSE_S = (0.3, 3.0)
HOLD_S = (0.5, 4.0)
COMMITS_MAX = 4


class Kind(StrEnum):
    """The kinds of faults. Every kill is a SIGKILL."""

    GATEWAY = "gateway killed"
    GATEWAYS = "every gateway killed"
    SCORER = "scorer killed"
    WRITE_LOCK = "write lock held"
    WRITE_LOCK_GATEWAY = "write lock held, gateway killed"
    DATABASE = "database killed"
    DATABASE_GATEWAY = "database killed, gateway killed"
    CUT = "connections cut"
    CUT_COMMIT = "connections cut in COMMIT"
    CUT_COMMIT_GATEWAYS = "connections cut in COMMIT, every gateway killed"
    REFUSED = "connections cut and refused"
    FROZEN = "connections frozen, then cut"

    @property
    def kills_gateway(self) -> bool:
        return self in {
            Kind.GATEWAY,
            Kind.GATEWAYS,
            Kind.WRITE_LOCK_GATEWAY,
            Kind.DATABASE_GATEWAY,
            Kind.CUT_COMMIT_GATEWAYS,
        }

    @property
    def fails_database(self) -> bool:
        return self not in {Kind.GATEWAY, Kind.GATEWAYS, Kind.SCORER}


DECKS = {
    SQLITE: (
        *[Kind.GATEWAY] * 5,
        *[Kind.SCORER] * 2,
        Kind.GATEWAYS,
        *[Kind.WRITE_LOCK] * 2,
        *[Kind.WRITE_LOCK_GATEWAY] * 2,
    ),
    POSTGRESQL: (
        *[Kind.GATEWAY] * 2,
        *[Kind.SCORER] * 2,
        *[Kind.DATABASE] * 2,
        Kind.DATABASE_GATEWAY,
        Kind.CUT,
        *[Kind.CUT_COMMIT] * 2,
        Kind.CUT_COMMIT_GATEWAYS,
        Kind.REFUSED,
        Kind.FROZEN,
    ),
}
"""Faults to shuffle and repeat, so that even a short run has every kind."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One planned fault."""

    kind: Kind
    pause_s: float
    """Time with traffic before the fault, once the service is ready."""

    hold_s: float
    """Duration of an outage of the database."""

    choice: int
    """Index of the replica to kill, modulo the number of replicas."""

    commits: int
    """Number of consecutive COMMITs that lose their answers."""


class Effects(Protocol):
    """What the verifier needs to know about a kind of fault."""

    @property
    def kills_gateway(self) -> bool: ...

    @property
    def fails_database(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Happened:
    """One fault that happened, in wall time."""

    kind: Effects
    began_at: Moment
    ended_at: Moment
    """The time when the database answered again, or the processes were dead."""

    kills: int
    """Number of killed processes, plus resets of all connections."""


def plan(database: str, seed: int) -> Iterator[Planned]:
    """Yield faults without end for ``sqlite`` or ``postgresql``."""
    random = Random(f"{database} {seed}")
    while True:
        deck = list(DECKS[database])
        random.shuffle(deck)
        for kind in deck:
            yield Planned(
                kind,
                random.uniform(*PAUSE_S),
                random.uniform(*HOLD_S),
                random.randrange(1_000),
                random.randint(1, COMMITS_MAX),
            )
