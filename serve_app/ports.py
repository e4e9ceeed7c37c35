"""What the rooms need from each other, as protocols. Fakes, SQL and Ray clients implement them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serve_app.domain.job import Job
from serve_app.domain.model import (
    Caller,
    JobScores,
    Portion,
    PortionScores,
    RateLimitState,
    ReplicaInfo,
    ServiceTier,
    TokenizedJob,
)
from serve_app.domain.units import (
    Credits,
    Instant,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Seconds,
    Tokens,
)


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An API key as the database holds it: never the secret, only its digest."""

    caller: Caller
    secret_sha256: bytes
    revoked_at: Moment | None
    expires_at: Moment | None


@dataclass(frozen=True, slots=True)
class Quote:
    """What one request is about to buy, known before any work."""

    request_id: RequestId
    model: ModelId
    documents: int
    amount: Credits
    timeout_s: Seconds
    """How long the request may take: its reservation lasts a little longer."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a settled request computed, for its row in the ledger."""

    documents: int
    tokens: Tokens


class Access(Protocol):
    """Who is asking."""

    async def authenticate(self, api_keys: Sequence[str]) -> Caller:
        """The caller behind the first of ``api_keys`` that is valid.

        Raises: Unauthenticated, Overloaded, LedgerUnavailable.
        """


class KeyStore(Protocol):
    """Where keys are kept."""

    async def find_keys(self, key_ids: Sequence[KeyId]) -> dict[KeyId, StoredKey]:
        """Those that there are, by their public ids; revoked and expired ones included.

        Raises: LedgerUnavailable.
        """


class Ledger(Protocol):
    """What a tenant may spend."""

    async def reserve(self, caller: Caller, quote: Quote) -> tuple[RateLimitState, ...]:
        """Set the quote's amount aside; answers, once that is durable, where the caller stands.

        Raises:
            RateLimited, TooLarge, SpendCapReached, OutOfCredit, ReservationClosed,
            LedgerUnavailable
        """

    async def commit(self, request_id: RequestId, amount: Credits, usage: Usage) -> None:
        """Charge ``amount`` (at most what was reserved) and give the rest back.

        Returns once that is durable: only then may the answer go out. Cancelling the call before
        its write has begun drops the write.

        Raises: ReservationClosed, LedgerUnavailable; then the answer must not go out.
        """

    def void(self, request_id: RequestId, usage: Usage) -> None:
        """Give the whole reservation back; ``usage`` says what was computed all the same.

        Never blocks and never raises: the write is queued behind those already waiting. If it is
        lost with this process, the reservation expires. Does nothing to a reservation that is
        already settled, or that was never made.
        """


class Pricing(Protocol):
    """What work costs. Pure."""

    def price(self, model: ModelId, documents: int, tier: ServiceTier) -> Credits:
        """Known before scoring, so the reservation and the charge are the same amount."""


class Tokenizer(Protocol):
    """From text to pairs, for one model. Thread-safe; slow enough to keep off the event loop."""

    pair_tokens_max: Tokens
    """Longest pair, special tokens included."""

    def check_queries(self, job: Job) -> None:
        """Check every distinct query. Queries of up to 1,000 characters do not wait for other jobs.

        Raises: InvalidRequest when a query has no token, or leaves no room for a document.
        """

    def tokenize(self, job: Job) -> TokenizedJob:
        """One tokenized pair for each text pair, in request order.

        The queries of ``job`` pass `check_queries`.
        """


class JobScorer(Protocol):
    """Scores a whole job, however many replicas that takes."""

    async def score(self, caller: Caller, job: Job, tokenized: TokenizedJob) -> JobScores:
        """The caller's tenant takes turns with others.

        Raises: EngineFailure, NoReplica, Overloaded, DeadlineExceeded.
        """


class PortionScorer(Protocol):
    """One model's replicas, as seen by the dispatcher."""

    async def score(self, portion: Portion, deadline: Instant) -> PortionScores:
        """One attempt on one replica.

        Raises:
            ReplicaLost: The replica died with the work; another attempt may succeed.
            NoReplica, Overloaded, EngineFailure, DeadlineExceeded: Another would not help.
        """

    async def describe(self) -> ReplicaInfo:
        """Ask any one replica who it is. Raises: NoReplica."""


class Engine(Protocol):
    """A loaded model on a device: token ids in, logits out. Blocking."""

    device: str
    precision: str
    description: str
    pair_tokens_max: int
    """Longest pair, special tokens included."""

    batches_at_once: int
    """Most callers of `score` at a time, 1 or 2; they are computed one after the other. Where there
    are two, `check` may be called beside them."""

    def warm_up(self) -> None:
        """Run the largest pass that limits allow. Raises: EngineFailure."""

    def check(self) -> None:
        """Run the smallest pair. Raises: EngineFailure when its logit is not a finite number."""

    def score(self, portions: Sequence[Portion]) -> list[list[float]]:
        """One list of float32 logits per portion, in its order.

        Raises: EngineFailure. A logit may still be NaN: whoever asks checks its own portion.
        """
