"""Data types of reranking.

A `serve_app.domain.job.Job` (text pairs) becomes a `serve_app.domain.tokenized.TokenizedJob` (pairs
of token ids), which is split into `Portion`s. Their `PortionScores` are combined into an `Outcome`.
Portions and their scores cross Ray handles, so they contain only bytes and tuples.
"""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TypedDict

from serve_app.domain.units import (
    Credits,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Seconds,
    TenantId,
    Tokens,
)

EMBEDDED = "embedded"
"""Model id that always refers to the default model, and the model source that needs no hub."""

INPUT_ID_BYTES = 4
"""Token ids are little-endian int32."""


class Truncation(StrEnum):
    """Text to cut if a pair exceeds the model's maximum length."""

    ONLY_DOCUMENT = "only_document"
    """Cut the end of the document. A query that leaves no room for a document is refused."""

    LONGEST_FIRST = "longest_first"
    """Cut the longer of the two texts, as the model's own tokenizer does."""


class Overflow(StrEnum):
    """What happens to a document that does not fit the model together with its query."""

    TRUNCATE = "truncate"
    """It is cut as `Truncation` says."""

    ERROR = "error"
    """The request is refused."""

    CHUNK = "chunk"
    """It is divided into overlapping windows, and its best window counts."""


class ServiceTier(StrEnum):
    """Urgency of a job. No tier starves."""

    PRIORITY = "priority"
    """Scheduled before the other tiers."""

    DEFAULT = "default"

    FLEX = "flex"
    """Cheaper, and uses capacity that the other tiers leave free."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits of a key, or of all keys of a tenant together. ``None`` means unlimited.

    A minute is any 60 seconds; a month is a calendar month in UTC.
    """

    requests_per_minute_max: int | None = None
    documents_per_minute_max: int | None = None
    concurrent_requests_max: int | None = None
    monthly_budget_micro_dollars: Credits | None = None


UNLIMITED = RateLimits()


class LimitChanges(TypedDict, total=False):
    """New values for some fields of `RateLimits`. ``None`` removes a limit."""

    requests_per_minute_max: int | None
    documents_per_minute_max: int | None
    concurrent_requests_max: int | None
    monthly_budget_micro_dollars: Credits | None


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """State of one rate limit of a caller, including the current request."""

    what: str
    """The limited unit, per minute: ``requests`` or ``documents``."""

    limit: int
    remaining: int
    reset_s: Seconds
    """Time until the whole ``limit`` is available again, without further requests."""


WEIGHT_MAX = 1_000
"""A competing tenant of weight 1 still gets about a thousandth."""


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """Settings of a tenant besides its limits. The layers read the names from `TENANT_SETTINGS`.

    A new setting also needs a column, a migration, a field on the wire and a command.
    """

    weight: int = 1
    """Share of busy scorers relative to other tenants."""

    def __post_init__(self) -> None:
        """Raises: ValueError, with a message for the operator."""
        if not 1 <= self.weight <= WEIGHT_MAX:
            raise ValueError(f"the weight must be 1 to {WEIGHT_MAX}")


TENANT_SETTINGS = tuple(field.name for field in fields(TenantSettings))
DEFAULT_SETTINGS = TenantSettings()


class SettingChanges(TypedDict, total=False):
    """New values for some fields of `TenantSettings`."""

    weight: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant and the API key of a request, with their permissions and limits."""

    tenant: TenantId
    key_id: KeyId
    scopes: frozenset[str]
    models: frozenset[ModelId] | None
    """Models that the key may use. ``None`` means all."""

    tenant_limits: RateLimits = UNLIMITED
    key_limits: RateLimits = UNLIMITED
    tenant_settings: TenantSettings = DEFAULT_SETTINGS


@dataclass(frozen=True, slots=True)
class Portion:
    """Pairs of one job that are sent to a replica together.

    Shapes, for P pairs with T tokens in total:
        input_ids     T little-endian int32, pair after pair
        lengths       (P,)  tokens of each pair
        query_tokens  (P,)  tokens of each pair's query segment
    """

    request_id: RequestId
    input_ids: bytes
    lengths: tuple[int, ...]
    query_tokens: tuple[int, ...]

    @property
    def tokens(self) -> Tokens:
        return Tokens(len(self.input_ids) // INPUT_ID_BYTES)


@dataclass(frozen=True, slots=True)
class PortionScores:
    """A scorer's result for a portion: one logit per pair, in order, and timings."""

    logits: tuple[float, ...]
    replica_id: str
    queue_wait_s: Seconds
    """Time from arrival at the replica until the portion's batch started on the device."""

    run_s: Seconds
    """Time of the whole batch on the device."""

    tokens_per_s: float
    """Recent speed of the replica, for all callers; 0 if it is not known yet."""


@dataclass(frozen=True, slots=True)
class JobScores:
    """One logit per pair, in the order of the job's pairs."""

    logits: tuple[float, ...]
    queue_wait_s: Seconds
    """The longest wait of any portion."""

    run_s: Seconds
    """Sum over the portions."""


@dataclass(slots=True)  # Not frozen, because 10,000 frozen ones take the event loop 4 ms more.
class RankedDocument:
    """A document in the ranking. ``index`` is its position in the request."""

    index: int
    logit: float
    truncated: bool
    span: tuple[int, int] | None = None
    """With ``Overflow.CHUNK``: start and end of the best window, in code points."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a request, with its charge and timings."""

    request_id: RequestId
    created_at: Moment
    model: ModelId
    results: tuple[RankedDocument, ...]
    """Best first."""

    documents: int
    """Number of pairs that were scored and charged, including those outside ``top_n``. Each window
    of a document is one."""

    tokens: Tokens
    charge: Credits
    queue_wait_s: Seconds
    run_s: Seconds
    rate_limits: tuple[RateLimitState, ...] = ()
    """For each kind of limit, the caller's state with the least remaining."""
    warnings: tuple[str, ...] = ()

    replayed: bool = False
    """Whether this answers a repeat: all other fields but ``rate_limits`` are the first request's.
    """
