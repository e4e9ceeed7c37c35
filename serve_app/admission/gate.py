"""Admission: refuse early, whole requests only, and count work rather than requests.

`Gate` says what may come in, `SharedGate` how much of it one tenant's, `HeadStarts` what may be
scored before it is paid for.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded
from serve_app.domain.job import Job
from serve_app.domain.units import Instant, KeyId, TenantId, Tokens

ASCII_CHARACTERS_PER_TOKEN = 4
"""English text under BERT's WordPiece; only an estimate of work not yet tokenized."""

BYTES_PER_TOKEN = 3
"""Of UTF-8 with anything else in it: a Chinese character is a token and three bytes."""

SPEED_WINDOW_S = 10.0

TENANTS_AT_LEAST = 4
"""Among so many a `SharedGate` can be shared, whatever one of them does."""

SMALL_TOKENS_MAX = 8_192
"""Of a small job, by the estimate: some hundred passages, a few milliseconds of a thread to
tokenize."""

SMALL_CHARACTERS_MAX = 200_000
"""Of a small job's texts, each query once: a fifth of a second of a thread at worst."""

HEAD_STARTS_MAX = 10_000
"""Keys that are remembered."""


def estimate_tokens(job: Job, pair_tokens_max: int) -> Tokens:
    """Roughly what ``job`` will cost, before it is tokenized; never 0.

    Admission comes before tokenization on purpose: otherwise a burst is tokenized first and
    refused afterwards.
    """
    queries = {query: _estimate(query) for query in job.queries}
    return Tokens(
        sum(
            min(pair_tokens_max, queries[pair.query] + _estimate(pair.document))
            for pair in job.pairs
        )
    )


def _estimate(text: str) -> int:
    if text.isascii():  # Known without looking.
        return len(text) // ASCII_CHARACTERS_PER_TOKEN + 1
    return len(text.encode()) // BYTES_PER_TOKEN + 1


def is_small(job: Job, tokens: Tokens) -> bool:
    """Whether ``job``, estimated at ``tokens``, is cheap to score and to tokenize. Characters are
    counted too, since tokenizing a text may read far more of it than the model does."""
    characters = sum(map(len, job.queries)) + sum(len(pair.document) for pair in job.pairs)
    return tokens <= SMALL_TOKENS_MAX and characters <= SMALL_CHARACTERS_MAX


class Gate:
    """Bounds what is inside this gateway, in tokens or in bytes. Not shared between threads.

    A request is let in whole or refused whole: letting in half of its documents would compute
    scores that no answer can use.
    """

    def __init__(self, amount_max: int, clock: Clock) -> None:
        assert amount_max >= 1
        self._amount_max = amount_max
        self._clock = clock
        self._amount = 0
        self._requests = 0
        self._released: deque[tuple[Instant, int]] = deque()

    @property
    def amount(self) -> int:
        """What is inside now."""
        return self._amount

    @property
    def requests(self) -> int:
        """How many are inside now, also with nothing."""
        return self._requests

    @contextmanager
    def admit(self, amount: int) -> Iterator[Callable[[int], None]]:
        """Hold room for ``amount`` while the block runs, or for less from the moment that the block
        calls what it is given with it.

        An empty gate lets anything in, so that no request is refused for ever.

        Raises:
            Overloaded: There is no room now. Nothing is held.
        """
        excess = self._amount + amount - self._amount_max
        if self._amount > 0 and excess > 0:
            raise self._overloaded(excess)

        held = amount
        self._amount += held

        def hold_only(less: int) -> None:
            nonlocal held
            self._amount -= held - less
            self._forget_old()
            self._released.append((self._clock.instant(), held - less))
            held = less

        self._requests += 1
        try:
            yield hold_only
        finally:
            self._requests -= 1
            hold_only(0)

    def _overloaded(self, excess: int) -> Overloaded:
        """Until ``excess`` has left, at the speed of the last ten seconds."""
        self._forget_old()
        speed = sum(amount for _, amount in self._released) / SPEED_WINDOW_S
        if speed == 0:
            # Nothing left in that time; nothing better is known.
            return Overloaded(int(SPEED_WINDOW_S))
        return Overloaded.until_gone(excess, speed)

    def _forget_old(self) -> None:
        horizon = self._clock.instant() - SPEED_WINDOW_S
        while self._released and self._released[0][0] < horizon:
            self._released.popleft()


class SharedGate:
    """A gate of which a tenant holds a quarter at most, so that none can close it for others."""

    def __init__(self, amount_max: int, clock: Clock) -> None:
        self._amount_max = amount_max
        self._clock = clock
        self._all = Gate(amount_max, clock)
        self._own: dict[TenantId, Gate] = {}

    @property
    def amount(self) -> int:
        """What is inside now, of all tenants."""
        return self._all.amount

    @contextmanager
    def admit(self, tenant: TenantId, amount: int) -> Iterator[Callable[[int], None]]:
        """See `Gate.admit`."""
        own = self._own.get(tenant)
        if own is None:
            share = max(1, self._amount_max // TENANTS_AT_LEAST)
            own = self._own[tenant] = Gate(share, self._clock)
        try:
            with own.admit(amount) as hold_own, self._all.admit(amount) as hold_all:

                def hold_only(less: int) -> None:
                    hold_own(less)
                    hold_all(less)

                yield hold_only
        finally:
            if not own.requests:
                self._own.pop(tenant, None)


class HeadStarts:
    """Whose small jobs may be scored while their credit is being reserved. Not shared between
    threads.

    What a key pays for, it may have scored in advance later: so what is computed for requests that
    are then refused is never more than what was paid for, nor than `SMALL_TOKENS_MAX` at once.
    """

    def __init__(self, keys_max: int = HEAD_STARTS_MAX) -> None:
        self._keys_max = keys_max
        self._earned: OrderedDict[KeyId, int] = OrderedDict()

    def earn(self, key_id: KeyId, tokens: Tokens) -> None:
        """A job of so many tokens, by the estimate, was charged."""
        earned = self._earned.pop(key_id, 0) + tokens
        self._earned[key_id] = min(earned, SMALL_TOKENS_MAX)
        if len(self._earned) > self._keys_max:
            self._earned.popitem(last=False)

    def take(self, key_id: KeyId, tokens: Tokens) -> bool:
        """Whether the key has earned so many, which it then has no more."""
        earned = self._earned.get(key_id, 0)
        if earned < tokens:
            return False
        self._earned[key_id] = earned - tokens
        return True
