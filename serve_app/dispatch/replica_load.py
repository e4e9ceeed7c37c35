"""The load of a replica, as far as one gateway knows it. Pure.

The least loaded replica gets the next portion. A gateway counts only its own tokens. That is
enough, because gateways that each spread their tokens evenly also do so together.
"""

from dataclasses import dataclass

from serve_app.domain.units import Tokens


@dataclass(slots=True)
class ReplicaLoad:
    """Tokens of one gateway on one replica."""

    inflight_tokens: int = 0
    """Tokens of portions that were sent and not answered."""

    last_turn: int = 0
    """The latest turn at which a portion was sent."""

    @property
    def rank(self) -> tuple[int, int]:
        """The replica with the lowest rank gets the next portion. Of equally loaded ones, that is
        the one whose last turn is longest ago, so that gateways do not all prefer the same one."""
        return self.inflight_tokens, self.last_turn

    def add(self, tokens: Tokens, turn: int) -> None:
        """Count a portion that is sent. Turns increase with every portion of the gateway."""
        self.inflight_tokens += tokens
        self.last_turn = turn

    def remove(self, tokens: Tokens) -> None:
        """Count the end of a portion: its answer, its failure or its cancellation."""
        self.inflight_tokens -= tokens
