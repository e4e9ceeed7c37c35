"""The backlogs of the gateways, as far as a scorer replica knows them. Pure.

Only a gateway knows how many tokens wait in its queue, and only scorers report to their autoscaler.
So every portion carries that number.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from serve_app.domain.units import Instant, Tokens

CURRENT_S = 1.0
"""A replica reports a backlog for this long after it arrives. Gateways with a queue send portions
more often."""

PREFIX = "backlog_tokens/"


@dataclass(frozen=True, slots=True)
class Backlog:
    """Tokens of one model that wait in one gateway."""

    gateway: str
    tokens: Tokens


class HeardBacklogs:
    """The latest backlogs of the gateways."""

    def __init__(self) -> None:
        self._heard: dict[str, tuple[Instant, Tokens]] = {}

    def hear(self, backlog: Backlog, now: Instant) -> None:
        self._heard[backlog.gateway] = now, backlog.tokens

    def stats(self, now: Instant) -> dict[str, float]:
        """Return one value per gateway, for Ray's ``record_autoscaling_stats``."""
        self._heard = {
            gateway: heard for gateway, heard in self._heard.items() if now - heard[0] <= CURRENT_S
        }
        return {f"{PREFIX}{gateway}": float(heard[1]) for gateway, heard in self._heard.items()}


def waiting_tokens(reports: Mapping[str, Iterable[float]]) -> Tokens:
    """Return the sum over the gateways of the highest value that a replica reports for each.

    ``reports``: for each stat, the latest value of every replica.
    """
    backlogs = (values for stat, values in reports.items() if stat.startswith(PREFIX))
    return Tokens(round(sum(max(values, default=0.0) for values in backlogs)))
