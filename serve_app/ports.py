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
    """An API key as stored in the database, which holds only a digest of the secret."""

    caller: Caller
    secret_sha256: bytes
    revoked_at: Moment | None
    expires_at: Moment | None


@dataclass(frozen=True, slots=True)
class Quote:
    """Size and highest price of one request, known before any work."""

    request_id: RequestId
    model: ModelId
    documents: int
    amount: Credits
    timeout_s: Seconds
    """Timeout of the request. Its reservation lasts a little longer."""

    idempotency: Idempotency | None = None
    revision: Revision = NO_REVISION
    """The revision of the model that will score the request."""

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
    """The caller's rate limits, and the answer to a repeat, for which nothing is reserved."""

    rate_limits: tuple[RateLimitState, ...] = ()
    repeats: RequestId | None = None
    """The first request, if this one repeats it."""

    outcome: bytes | None = None
    """The stored outcome of the first request."""


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """An outcome in bytes, to be stored for the repeats of its request."""

    idempotency: Idempotency
    outcome: bytes


@dataclass(frozen=True, slots=True)
class Usage:
    """Work of a request: what was computed, for its row in the ledger, or the most it can need."""

    documents: int
    tokens: Tokens


NO_USAGE = Usage(documents=0, tokens=Tokens(0))


class Access(Protocol):
    """Authenticates callers."""

    async def authenticate(self, api_keys: Sequence[str], *scopes: str) -> Caller:
        """Return the caller behind the first of ``api_keys`` that is valid.

        Raises:
            Forbidden: The key has none of ``scopes``.
            Unauthenticated, Overloaded, LedgerUnavailable
        """


class KeyStore(Protocol):
    """Stores API keys."""

    async def find_keys(self, key_ids: Sequence[KeyId]) -> dict[KeyId, StoredKey]:
        """Return the existing keys by public id, including revoked and expired ones.

        Raises: LedgerUnavailable.
        """


class Ledger(Protocol):
    """Reserves and charges the credit of tenants."""

    async def reserve(self, caller: Caller, quote: Quote) -> Reserved:
        """Reserve the quote's amount; return once that is written.

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

        Returns once that and ``stored`` are durable; only then may the answer be sent. Cancelling
        the call before its write has begun drops the write.

        Raises: ReservationClosed, LedgerUnavailable; then the answer must not be sent.
        """

    def void(self, request_id: RequestId, usage: Usage) -> None:
        """Release the whole reservation; ``usage`` is the computed work.

        Never blocks and never raises: the write is queued behind earlier ones. If this process dies
        before the write, the reservation expires. Does nothing if the reservation is already
        settled or was never made.
        """


class Pricing(Protocol):
    """Sets the prices of requests. Pure."""

    def price(self, model: ModelId, usage: Usage, tier: ServiceTier) -> Credits:
        """Return the price of ``usage``. More documents or tokens never cost less."""


class Tokenizer(Protocol):
    """Tokenizes text pairs for one model. Thread-safe; too slow for the event loop."""

    pair_tokens_max: Tokens
    """Longest pair, including special tokens."""

    def check_queries(self, job: Job) -> Usage:
        """Check every distinct query, and return the most work that ``job`` can need.

        Queries of up to 1,000 characters do not wait for other jobs.

        Raises: InvalidRequest if a query has no token, or leaves no room for a document.
        """

    def tokenize(self, job: Job) -> TokenizedJob:
        """Return one tokenized pair per text pair or, with ``Overflow.CHUNK``, per window.

        The queries of ``job`` must pass `check_queries`.

        Raises:
            InvalidRequest: A document does not fit, with ``Overflow.ERROR``.
            TooLarge: There are more than ``job.windows_max`` windows.
        """


class JobTokenizer(Protocol):
    """Tokenizes jobs for one model without blocking the event loop."""

    async def check_queries(self, job: Job, *, small: bool) -> Usage:
        """See `Tokenizer.check_queries`. ``small`` jobs do not wait for others."""

    async def tokenize(self, job: Job, *, small: bool) -> TokenizedJob:
        """See `Tokenizer.tokenize`. ``small`` jobs do not wait for others."""


PortionReport = Callable[[Tokens, Seconds], None]
"""Takes the tokens of a scored portion, and the time for which its batch ran."""


class JobScorer(Protocol):
    """Scores a whole job on any number of replicas."""

    async def score(
        self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
    ) -> JobScores:
        """Score ``job``. Tenants share the replicas fairly.

        Args:
            report: Called for each scored portion.

        Raises: EngineFailure, NoReplica, Overloaded, DeadlineExceeded.
        """


class Shadow(Protocol):
    """Scores answered jobs once more with another revision, to compare both."""

    def offer(self, caller: Caller, job: Job, tokenized: TokenizedJob, scores: JobScores) -> None:
        """Take a job after its charge is committed. Returns immediately and never raises."""


class PortionScorer(Protocol):
    """The replicas of one model, for the dispatcher."""

    async def score(
        self, portion: Portion, deadline: Instant, backlog_tokens: Tokens
    ) -> PortionScores:
        """Make one attempt on one replica.

        ``backlog_tokens``: what waits in the caller's queue. It is for autoscaling only.

        Raises:
            ReplicaLost: The replica died with the work; another attempt may succeed.
            NoReplica, Overloaded, EngineFailure, DeadlineExceeded: A retry would not help.
        """

    async def describe(self) -> ReplicaInfo:
        """Return the description of any one replica. Raises: NoReplica."""


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
    """Maximum concurrent callers of `score`, 1 or 2; their batches run one after the other. With 2,
    `check` may run concurrently."""

    def warm_up(self) -> None:
        """Run the largest pass that the limits allow. Raises: EngineFailure."""

    def check(self) -> None:
        """Score the smallest pair. Raises: EngineFailure if its logit is not a finite number."""

    def score(self, portions: Sequence[Portion]) -> list[list[float]]:
        """Return one list of float32 logits per portion, in the order of its pairs.

        Raises: EngineFailure. A logit may still be NaN: each caller checks its own portion.
        """
