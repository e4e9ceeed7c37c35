"""The ways to take turns of which `fair_queue` is made. Pure."""

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

from serve_app.domain.units import Tokens

K = TypeVar("K", bound=Hashable)


class Patience:
    """Lets pass ``times`` as many tokens as its own, and then it is its turn."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._passed = 0

    def is_over(self, tokens: Tokens) -> bool:
        return self._passed >= self._times * tokens

    def pass_over(self, tokens: Tokens) -> None:
        self._passed += tokens

    def serve(self, tokens: Tokens) -> None:
        self._passed = max(0, self._passed - self._times * tokens)

    def forget(self) -> None:
        self._passed = 0


class LeastFirst(Generic[K]):
    """Keys in the order of an amount of each; among equals the one that was placed first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._places: dict[K, tuple[float, int, K]] = {}
        self._order = itertools.count()

    def place(self, key: K, amount: float) -> None:
        """Add ``key``, or move it."""
        place = (amount, next(self._order), key)
        self._places[key] = place
        if len(self._heap) > 2 * len(self._places) + 16:  # Mostly of moved and removed keys.
            self._heap = list(self._places.values())
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, place)

    def remove(self, key: K) -> float:
        """Its amount."""
        return self._places.pop(key)[0]

    def amount(self, key: K) -> float:
        return self._places[key][0]

    def __contains__(self, key: K) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def first(self) -> K:
        """The key with the least; there must be one."""
        while self._places.get(self._heap[0][2]) is not self._heap[0]:
            heapq.heappop(self._heap)  # Moved or removed since.
        return self._heap[0][2]


class FairShares(Generic[K]):
    """Of those that wait, who was served least is next: start-time fair queueing.

    A newcomer begins where the one that was served last began, so that nobody saves up turns by not
    asking; one that comes back begins no lower than it left.
    """

    def __init__(self) -> None:
        self._waiting: LeastFirst[K] = LeastFirst()
        self._level = 0.0
        self._left: LeastFirst[K] = LeastFirst()

    def join(self, key: K) -> None:
        """``key``, which did not wait, does from now on."""
        left_at = self._left.remove(key) if key in self._left else 0.0
        self._waiting.place(key, max(self._level, left_at))

    def first(self) -> K:
        """Who is next; somebody must wait."""
        return self._waiting.first()

    def serve(self, key: K, amount: float) -> None:
        """It was given so much, of which its share is to be equal."""
        self._level = self._waiting.amount(key)
        self._waiting.place(key, self._level + amount)
        # Who left below the present level would begin there anyway.
        while self._left and self._left.amount(self._left.first()) <= self._level:
            self._left.remove(self._left.first())

    def leave(self, key: K) -> None:
        """It does not wait any more."""
        level = self._waiting.remove(key)
        if not self._waiting:  # Nobody waited for anybody.
            self._left = LeastFirst()
        elif level > self._level:
            self._left.place(key, level)
