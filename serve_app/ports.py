"""Interfaces between the packages."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from serve_app.domain.job import Idempotency, Job
from serve_app.domain.model import (
    Caller,
    JobScores,
    Portion,
    PortionScores,
    RateLimitState,
    ServiceTier,
)
from serve_app.domain.model_card import ReplicaInfo
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import (
    NO_REVISION,
    Credits,
    Instant,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Revision,
    Seconds,
    Tokens,
)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key, of which the database has only a digest."""

    caller: Caller
    secret_sha256: bytes
    revoked_at: Moment | None
    expires_at: Moment | None


@dataclass(frozen=True, slots=True)
class Quote:
    """Size and highest price of one request."""

    request_id: RequestId
    model: ModelId
    documents: int
    amount: Credits
    timeout_s: Seconds
    """The reservation lasts a little longer."""

    idempotency: Idempotency | None = None
    revision: Revision = NO_REVISION

    @classmethod
    def of(cls, job: Job, revision: Revision, amount: Credits) -> Self:
        return cls(
            job.request_id,
            job.model,
            len(job.pairs),
            amount,
            job.timeout_s,
            job.idempotency,
            revision,
        )


@dataclass(frozen=True, slots=True)
class Reserved:
    """The caller's rate limits; for a repeat, also the first request and its outcome."""

    rate_limits: tuple[RateLimitState, ...] = ()
    repeats: RequestId | None = None
    outcome: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """An outcome in bytes, for the repeats of its request."""

    idempotency: Idempotency
    outcome: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """The computed work of a request, or the most that it can need."""

    documents: int
    tokens: Tokens


NO_USAGE = Usage(documents=0, tokens=Tokens(0))


class Access(Protocol):
    """Authenticates callers."""

    async def authenticate(self, api_keys: Sequence[str], *scopes: str) -> Caller:
        """Return the caller of the first valid key.

        Raises: Forbidden if the key has none of ``scopes``, Unauthenticated, Overloaded,
        LedgerUnavailable.
        """


class KeyStore(Protocol):
    """Stores API keys."""

    async def find_keys(self, key_ids: Sequence[KeyId]) -> dict[KeyId, StoredKey]:
        """Return the existing keys, including revoked and expired ones.

        Raises: LedgerUnavailable.
        """


class Ledger(Protocol):
    """Reserves and charges the credit of tenants."""

    async def reserve(self, caller: Caller, quote: Quote) -> Reserved:
        """Reserve the quote's amount durably.

        A repeat of a charged request reserves nothing and counts towards no limit.

        Raises:
            ConcurrencyLimited, RateLimited, TooLarge, SpendCapReached, OutOfCredit,
            IdempotencyKeyInUse, IdempotencyKeyReused, ReservationClosed, LedgerUnavailable
        """

    async def commit(
        self,
        request_id: RequestId,
        amount: Credits,
        usage: Usage,
        stored: StoredOutcome | None = None,
    ) -> None:
        """Charge ``amount`` (at most the reserved amount) and release the rest.

        The charge and ``stored`` are durable when this returns, and only then may the answer be
        sent. Cancelling the call before its write has begun drops the write.

        Raises: ReservationClosed, LedgerUnavailable.
        """

    def void(self, request_id: RequestId, usage: Usage) -> None:
        """Release the reservation, unless it is settled or was never made.

        ``usage`` is the computed work. Never blocks and never raises: the write is queued. If this
        process dies first, the reservation expires.
        """


class Pricing(Protocol):
    """Sets the prices of requests. Pure."""

    def price(self, model: ModelId, usage: Usage, tier: ServiceTier) -> Credits:
        """More documents or tokens never cost less."""


class Tokenizer(Protocol):
    """Tokenizes pairs for one model. Thread-safe; too slow for the event loop."""

    pair_tokens_max: Tokens
    """Longest pair, including special tokens."""

    def check_queries(self, job: Job) -> Usage:
        """Check every query, and return the most work that ``job`` can need.

        Queries of up to 1,000 characters do not wait for other jobs.

        Raises: InvalidRequest if a query has no token, or leaves no room for a document.
        """

    def tokenize(self, job: Job) -> TokenizedJob:
        """Return one tokenized pair per text pair or, with ``Overflow.CHUNK``, per window.

        The queries must pass `check_queries` first.

        Raises: InvalidRequest if a document does not fit, with ``Overflow.ERROR``; TooLarge if
        there are more than ``job.windows_max`` windows.
        """


class JobTokenizer(Protocol):
    """A `Tokenizer` that does not block the event loop. ``small`` jobs do not wait for others."""

    async def check_queries(self, job: Job, *, small: bool) -> Usage:
        """See `Tokenizer.check_queries`."""

    async def tokenize(self, job: Job, *, small: bool) -> TokenizedJob:
        """See `Tokenizer.tokenize`."""


PortionReport = Callable[[Tokens, Seconds], None]
"""Takes the tokens of a scored portion, and its batch's run time."""


class JobScorer(Protocol):
    """Scores a whole job on any number of replicas."""

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        """Score ``job``, and ``report`` each scored portion. Tenants share the replicas fairly.

        Raises: EngineFailure, NoReplica, Overloaded, DeadlineExceeded.
        """


class Shadow(Protocol):
    """Scores answered jobs again with another revision."""

    def offer(self, caller: Caller, job: Job, tokenized: TokenizedJob, scores: JobScores) -> None:
        """Take a job after its charge is committed. Returns immediately and never raises."""


class PortionScorer(Protocol):
    """The replicas of one model."""

    async def score(
        self, portion: Portion, deadline: Instant, backlog_tokens: Tokens
    ) -> PortionScores:
        """Make one attempt on one replica.

        ``backlog_tokens`` wait in the caller's queue. They are for autoscaling only.

        Raises:
            ReplicaLost: The replica died with the work; another attempt may succeed.
            NoReplica, Overloaded, EngineFailure, DeadlineExceeded: A retry would not help.
        """

    async def describe(self) -> ReplicaInfo:
        """Describe any one replica. Raises: NoReplica."""


class Engine(Protocol):
    """A loaded model on a device, from token ids to logits. Calls block."""

    device: str
    precision: str
    description: str
    activation: str
    """See `ReplicaInfo`."""

    pair_tokens_max: int
    """Longest pair, including special tokens."""

    batches_at_once: int
    """Most concurrent callers of `score`, 1 or 2; their batches run one after the other. With 2,
    `check` may run concurrently."""

    def warm_up(self) -> None:
        """Run the largest pass that the limits allow. Raises: EngineFailure."""

    def check(self) -> None:
        """Score the smallest pair. Raises: EngineFailure, also for a logit that is not finite."""

    def score(self, portions: Sequence[Portion]) -> list[list[float]]:
        """Return the float32 logits of each portion, in the order of its pairs.

        Raises: EngineFailure. A logit may still be NaN, which each caller must check.
        """
