"""What is to go wrong, when, in which order. Pure: a seed gives the same plan every time."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from serve_app.domain.units import Moment

SQLITE, POSTGRESQL = "sqlite", "postgresql"
PAUSE_S = (0.3, 3.0)
HOLD_S = (0.5, 4.0)
COMMITS_MAX = 4


class Kind(StrEnum):
    """One way to fail. Every kill is a SIGKILL."""

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
"""Shuffled and dealt again and again, so that a short run sees every kind."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault to come."""

    kind: Kind
    pause_s: float
    """Traffic before it, once the service is ready."""

    hold_s: float
    """How long the database stays away, where it does."""

    choice: int
    """Which replica: this many-th, counted round."""

    commits: int
    """How many COMMITs in a row lose their answers, where they do."""


@dataclass(frozen=True, slots=True)
class Happened:
    """One fault that was, in wall time."""

    kind: Kind
    began_at: Moment
    ended_at: Moment
    """The database answers again, or the processes are dead."""

    kills: int
    """Processes killed, and mass cuts of connections."""


def plan(database: str, seed: int) -> Iterator[Planned]:
    """Faults without end for ``sqlite`` or ``postgresql``."""
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
