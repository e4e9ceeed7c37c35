"""Admission: refuse early, whole requests only, and count work rather than requests."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded
from serve_app.domain.model import RerankJob
from serve_app.domain.units import Instant, Tokens

BYTES_PER_TOKEN = 4
"""English text under BERT's WordPiece; only a bound on work not yet tokenized."""

SPEED_WINDOW_S = 10.0
RETRY_AFTER_S_MAX = 60


def estimate_tokens(job: RerankJob, pair_tokens_max: int) -> Tokens:
    """Roughly what ``job`` will cost, before it is tokenized; never 0.

    Admission comes before tokenization on purpose: otherwise a burst is tokenized first and
    refused afterwards.
    """
    query = len(job.query) // BYTES_PER_TOKEN + 1
    return Tokens(
        sum(
            min(pair_tokens_max, query + len(document) // BYTES_PER_TOKEN + 1)
            for document in job.documents
        )
    )


class Gate:
    """Bounds the tokens inside this gateway. Not shared between threads.

    A request is let in whole or refused whole: letting in half of its documents would compute
    scores that no answer can use.
    """

    def __init__(self, tokens_max: Tokens, pair_tokens_max: int, clock: Clock) -> None:
        assert tokens_max >= 1
        self._tokens_max = tokens_max
        self._pair_tokens_max = pair_tokens_max
        self._clock = clock
        self._tokens = Tokens(0)
        self._released: deque[tuple[Instant, Tokens]] = deque()

    @property
    def tokens(self) -> Tokens:
        """Estimated tokens inside now."""
        return self._tokens

    @contextmanager
    def admit(self, job: RerankJob) -> Iterator[None]:
        """Hold room for ``job`` while the block runs.

        An empty gate lets any request in, so that none is refused for ever.

        Raises:
            Overloaded: There is no room now. Nothing is held.
        """
        tokens = estimate_tokens(job, self._pair_tokens_max)
        excess = self._tokens + tokens - self._tokens_max
        if self._tokens > 0 and excess > 0:
            raise Overloaded(self._retry_after_s(excess))

        self._tokens = Tokens(self._tokens + tokens)
        try:
            yield
        finally:
            self._tokens = Tokens(self._tokens - tokens)
            self._forget_old()
            self._released.append((self._clock.instant(), tokens))

    def _retry_after_s(self, excess: int) -> int:
        """Seconds until ``excess`` tokens have left, at the speed of the last ten seconds."""
        self._forget_old()
        speed = sum(tokens for _, tokens in self._released) / SPEED_WINDOW_S
        if speed == 0:
            return int(SPEED_WINDOW_S)  # Nothing left in that time; nothing better is known.
        return max(1, min(RETRY_AFTER_S_MAX, math.ceil(excess / speed)))

    def _forget_old(self) -> None:
        horizon = self._clock.instant() - SPEED_WINDOW_S
        while self._released and self._released[0][0] < horizon:
            self._released.popleft()
