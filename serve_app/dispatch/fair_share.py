"""Scheduling primitives of `fair_queue`. Pure."""

import heapq
import itertools
from collections.abc import Hashable
from typing import Generic, TypeVar

from serve_app.domain.units import Tokens

K = TypeVar("K", bound=Hashable)


class Aging:
    """A waiting tier is due when others were served ``times`` as many tokens as its own."""

    def __init__(self, times: int) -> None:
        self._times = times
        self._passed = 0

    def is_due(self, tokens: Tokens) -> bool:
        return self._passed >= self._times * tokens

    def pass_over(self, tokens: Tokens) -> None:
        self._passed += tokens

    def serve(self, tokens: Tokens) -> None:
        self._passed = max(0, self._passed - self._times * tokens)

    def reset(self) -> None:
        self._passed = 0


class LeastFirst(Generic[K]):
    """Priority queue of keys, least amount first; equal amounts in order of placement."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        self._places: dict[K, tuple[float, int, K]] = {}
        self._order = itertools.count()

    def place(self, key: K, amount: float) -> None:
        place = (amount, next(self._order), key)
        self._places[key] = place
        if len(self._heap) > 2 * len(self._places) + 16:  # Most are out of date.
            self._heap = list(self._places.values())
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, place)

    def remove(self, key: K) -> float:
        return self._places.pop(key)[0]

    def amount(self, key: K) -> float:
        return self._places[key][0]

    def __contains__(self, key: K) -> bool:
        return key in self._places

    def __len__(self) -> int:
        return len(self._places)

    def first(self) -> K:
        while self._places.get(self._heap[0][2]) is not self._heap[0]:
            heapq.heappop(self._heap)  # The key was moved or removed.
        return self._heap[0][2]


class FairShares(Generic[K]):
    """Start-time fair queueing: the waiting key that received the least service is next.

    Idle time earns no credit: a newcomer starts at the level where the last served key started. A
    key that returns starts no lower than where it left.
    """

    def __init__(self) -> None:
        self._waiting: LeastFirst[K] = LeastFirst()
        self._level = 0.0
        self._left: LeastFirst[K] = LeastFirst()

    def join(self, key: K) -> None:
        """``key`` must not be waiting."""
        left_at = self._left.remove(key) if key in self._left else 0.0
        self._waiting.place(key, max(self._level, left_at))

    def first(self) -> K:
        return self._waiting.first()

    def serve(self, key: K, amount: float) -> None:
        self._level = self._waiting.amount(key)
        self._waiting.place(key, self._level + amount)
        # A key that left below the current level would join at the current level anyway.
        while self._left and self._left.amount(self._left.first()) <= self._level:
            self._left.remove(self._left.first())

    def leave(self, key: K) -> None:
        level = self._waiting.remove(key)
        if not self._waiting:  # No key is ahead of another.
            self._left = LeastFirst()
        elif level > self._level:
            self._left.place(key, level)
