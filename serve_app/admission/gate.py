"""Admission: refuse early, refuse whole requests only, and count work rather than requests.

`Gate` limits the total, `SharedGate` also limits each tenant's part, and `HeadStarts` decides which
jobs may be scored before their credit is reserved.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded
from serve_app.domain.job import Job
from serve_app.domain.units import Instant, KeyId, TenantId, Tokens

ASCII_CHARACTERS_PER_TOKEN = 4
"""For English text with BERT's WordPiece. Only for estimates before tokenization."""

BYTES_PER_TOKEN = 3
"""UTF-8 bytes, for text that is not ASCII. A Chinese character is one token and three bytes."""

SPEED_WINDOW_S = 10.0

TENANTS_AT_LEAST = 4
"""A tenant may hold at most 1/N of a `SharedGate`, so at least N tenants fit."""

SMALL_TOKENS_MAX = 8_192
"""Estimated tokens of a small job: about a hundred passages, which take a few milliseconds to
tokenize."""

SMALL_CHARACTERS_MAX = 200_000
"""Characters of a small job, each query counted once: at worst 0.2 s to tokenize."""

HEAD_STARTS_MAX = 10_000
"""Keys for which an allowance is stored."""


def estimate_tokens(job: Job, pair_tokens_max: int) -> Tokens:
    """Return an estimate of the tokens of ``job`` before it is tokenized; never 0.

    Admission comes before tokenization on purpose: otherwise a burst would be tokenized first and
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
    if text.isascii():  # Python stores this with the string.
        return len(text) // ASCII_CHARACTERS_PER_TOKEN + 1
    return len(text.encode()) // BYTES_PER_TOKEN + 1


def is_small(job: Job, tokens: Tokens) -> bool:
    """Return whether ``job``, estimated at ``tokens``, is cheap to tokenize and to score.

    Characters count too, because the tokenizer may read far more of a text than the model does.
    """
    characters = sum(map(len, job.queries)) + sum(len(pair.document) for pair in job.pairs)
    return tokens <= SMALL_TOKENS_MAX and characters <= SMALL_CHARACTERS_MAX


class Gate:
    """Limits the tokens or bytes inside this gateway. Not thread-safe.

    A request is admitted or refused as a whole, because no answer can use the scores of half of its
    documents.
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
        """Amount inside now."""
        return self._amount

    @property
    def requests(self) -> int:
        """Number of requests inside now, including those that hold nothing."""
        return self._requests

    @contextmanager
    def admit(self, amount: int) -> Iterator[Callable[[int], None]]:
        """Hold ``amount`` while the block runs. The block may call the yielded function to hold
        less.

        An empty gate admits any request, so that no request is refused forever.

        Raises:
            Overloaded: There is not enough room now. Nothing is held.
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
        """Return an error to retry once ``excess`` leaves, at the rate of the last ten seconds."""
        self._forget_old()
        speed = sum(amount for _, amount in self._released) / SPEED_WINDOW_S
        if speed == 0:
            # Nothing has left in that time, so there is no better estimate.
            return Overloaded(int(SPEED_WINDOW_S))
        return Overloaded.until_gone(excess, speed)

    def _forget_old(self) -> None:
        horizon = self._clock.instant() - SPEED_WINDOW_S
        while self._released and self._released[0][0] < horizon:
            self._released.popleft()


class SharedGate:
    """A gate of which a tenant may hold at most a quarter, so that none can block the others."""

    def __init__(self, amount_max: int, clock: Clock) -> None:
        self._amount_max = amount_max
        self._clock = clock
        self._all = Gate(amount_max, clock)
        self._own: dict[TenantId, Gate] = {}

    @property
    def amount(self) -> int:
        """Amount inside now, of all tenants."""
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
    """Allowances per key for scoring small jobs while their credit is being reserved.

    Each charge earns the key an equal allowance, so compute wasted on refused requests never
    exceeds the work that it has paid for, nor `SMALL_TOKENS_MAX` at any time. Not thread-safe.
    """

    def __init__(self, keys_max: int = HEAD_STARTS_MAX) -> None:
        self._keys_max = keys_max
        self._earned: OrderedDict[KeyId, int] = OrderedDict()

    def earn(self, key_id: KeyId, tokens: Tokens) -> None:
        """Add the estimated tokens of a charged job."""
        earned = self._earned.pop(key_id, 0) + tokens
        self._earned[key_id] = min(earned, SMALL_TOKENS_MAX)
        if len(self._earned) > self._keys_max:
            self._earned.popitem(last=False)

    def take(self, key_id: KeyId, tokens: Tokens) -> bool:
        """Deduct ``tokens`` if the key's allowance covers them; return whether it does."""
        earned = self._earned.get(key_id, 0)
        if earned < tokens:
            return False
        self._earned[key_id] = earned - tokens
        return True
