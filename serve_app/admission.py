"""Admission: refuse early, whole requests only, and count work rather than requests.

`Places` bounds the requests whose bodies are read, `RefusalBudget` the work for requests that are
then refused. `Gate` says what may come in, `SharedGate` how much of it one tenant's, `HeadStarts`
what may be scored before it is paid for.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from serve_app.domain.clock import Clock
from serve_app.domain.errors import Overloaded, RateLimited, TooManyRefusals, retry_after
from serve_app.domain.job import Job
from serve_app.domain.model import Caller
from serve_app.domain.units import Instant, KeyId, TenantId, Tokens

ASCII_CHARACTERS_PER_TOKEN = 4
"""English text under BERT's WordPiece; only an estimate of work not yet tokenized."""

BYTES_PER_TOKEN = 3
"""Of UTF-8 with anything else in it: a Chinese character is a token and three bytes."""

SPEED_WINDOW_S = 10.0

RETRY_AFTER_S = 1
"""Where nothing better is known: places are free again as soon as any request ends."""

TENANTS_AT_LEAST = 4
"""Among so many a `SharedGate` can be shared, whatever one of them does."""

SMALL_TOKENS_MAX = 8_192
"""Of a small job, by the estimate: some hundred passages, a few milliseconds of a thread to
tokenize."""

SMALL_CHARACTERS_MAX = 200_000
"""Of a small job's texts, each query once: a fifth of a second of a thread at worst."""

HEAD_STARTS_MAX = 10_000
"""Keys that are remembered."""

PLACES = 2_048
"""Requests that one gateway reads and works on at once. A place costs some 100 KB of memory at
most, besides the body, which `SharedGate` bounds."""

KEYS_AT_LEAST = 2
"""The keys among which a tenant's places can always be shared."""

REFUSALS_MAX = 200
"""A tenant's budget of refused requests when none was refused lately."""

REFUSALS_PER_S = 20
"""What comes back to the budget each second. A small refused request costs a gateway a few
milliseconds, so this is some 5 % of a core."""

BODY_BYTES_PER_REFUSAL = 100_000
"""A refused body of this size costs as much again as a small refused request."""


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


class Places:
    """Bounds the requests inside a gateway: all of them, those of a tenant, and those of a key.

    A place is taken once the caller is known and before the body is read, so that bodies which
    never arrive use up the places of their own key only. Not shared between threads.
    """

    def __init__(self, places: int = PLACES) -> None:
        self._all_max = places
        self._tenant_max = places // TENANTS_AT_LEAST
        self._key_max = self._tenant_max // KEYS_AT_LEAST
        self._all = 0
        self._of_tenants: Counter[TenantId] = Counter()
        self._of_keys: Counter[KeyId] = Counter()

    @contextmanager
    def take(self, caller: Caller) -> Iterator[None]:
        """Hold a place while the block runs.

        Raises:
            RateLimited: The key or its tenant holds as many as it may.
            Overloaded: All places are taken.
        """
        if self._of_keys[caller.key_id] >= self._key_max:
            raise RateLimited("key", "requests at once", RETRY_AFTER_S, ())
        if self._of_tenants[caller.tenant] >= self._tenant_max:
            raise RateLimited("tenant", "requests at once", RETRY_AFTER_S, ())
        if self._all >= self._all_max:
            raise Overloaded(RETRY_AFTER_S)
        self._all += 1
        self._of_tenants[caller.tenant] += 1
        self._of_keys[caller.key_id] += 1
        try:
            yield
        finally:
            self._all -= 1
            _release(self._of_tenants, caller.tenant)
            _release(self._of_keys, caller.key_id)


def _release(taken: Counter[Any], owner: str) -> None:
    taken[owner] -= 1
    if not taken[owner]:
        del taken[owner]


class RefusalBudget:
    """How much work a gateway does for requests that it then refuses, per tenant.

    Nobody pays for a refused request, although its body was received and parsed and the ledger was
    asked. A tenant whose budget is used up is refused before that. Answered requests earn the
    budget back, so a tenant that runs into a limit still gets all that the limit allows. Not
    shared between threads.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left: dict[TenantId, tuple[float, Instant]] = {}
        """What was left at an instant; a tenant that is absent has all of its budget."""

    def check(self, tenant: TenantId) -> None:
        """Raises: TooManyRefusals when nothing is left of the tenant's budget."""
        left = self._now_left(tenant)
        if left <= 0:
            raise TooManyRefusals(retry_after((1 - left) / REFUSALS_PER_S))

    def refused(self, tenant: TenantId, body_bytes: int) -> None:
        """A request of the tenant was refused after ``body_bytes`` of its body were read."""
        self._change(tenant, -_cost(body_bytes))

    def answered(self, tenant: TenantId, body_bytes: int) -> None:
        """A request of the tenant was answered and charged."""
        if tenant in self._left:
            self._change(tenant, _cost(body_bytes))

    def _now_left(self, tenant: TenantId) -> float:
        left, since = self._left.get(tenant, (REFUSALS_MAX, Instant(0)))
        return min(REFUSALS_MAX, left + (self._clock.instant() - since) * REFUSALS_PER_S)

    def _change(self, tenant: TenantId, amount: float) -> None:
        # Not below the negative of the budget, so that a tenant is back after a few seconds.
        left = max(-REFUSALS_MAX, self._now_left(tenant) + amount)
        if left >= REFUSALS_MAX:
            self._left.pop(tenant, None)
        else:
            self._left[tenant] = (left, self._clock.instant())


def _cost(body_bytes: int) -> float:
    return 1 + body_bytes / BODY_BYTES_PER_REFUSAL


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
