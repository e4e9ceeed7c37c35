"""Data types of reranking.

A `Job` (text pairs) becomes a `TokenizedJob` (token ids), which is split into `Portion`s. Their
`PortionScores` become an `Outcome`. What crosses Ray handles contains only bytes and tuples.
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
"""Name of the default model, unless it is the id of a model; also the model source that needs no
hub."""

INPUT_ID_BYTES = 4
"""Token ids are little-endian int32."""


class Truncation(StrEnum):
    """What to cut of a pair that is too long."""

    ONLY_DOCUMENT = "only_document"
    """A query that leaves no room for a document is refused."""

    LONGEST_FIRST = "longest_first"
    """Cut the longer of the two texts, as the model's own tokenizer does."""


class Overflow(StrEnum):
    """What happens to a document that does not fit with its query."""

    TRUNCATE = "truncate"
    """See `Truncation`."""

    ERROR = "error"
    """The request is refused."""

    CHUNK = "chunk"
    """It is divided into overlapping windows, of which the best counts."""


class ServiceTier(StrEnum):
    """Urgency of a job. No tier starves."""

    PRIORITY = "priority"
    DEFAULT = "default"

    FLEX = "flex"
    """Cheaper; uses capacity that other tiers leave free."""


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits of a key, or of a tenant's keys together. ``None`` means unlimited.

    A minute is any 60 seconds; a month is a calendar month in UTC.
    """

    requests_per_minute_max: int | None = None
    documents_per_minute_max: int | None = None
    concurrent_requests_max: int | None = None
    monthly_budget_micro_dollars: Credits | None = None


UNLIMITED = RateLimits()


class LimitChanges(TypedDict, total=False):
    """Changes of some `RateLimits`. ``None`` removes a limit."""

    requests_per_minute_max: int | None
    documents_per_minute_max: int | None
    concurrent_requests_max: int | None
    monthly_budget_micro_dollars: Credits | None


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """State of one rate limit, including the current request."""

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
    """Settings of a tenant besides its limits.

    A new one also needs a column, a migration, a field on the wire and a command.
    """

    weight: int = 1
    """Share of busy scorers relative to other tenants."""

    def __post_init__(self) -> None:
        """Raises: ValueError, for the operator."""
        if not 1 <= self.weight <= WEIGHT_MAX:
            raise ValueError(f"the weight must be 1 to {WEIGHT_MAX}")


TENANT_SETTINGS = tuple(field.name for field in fields(TenantSettings))
DEFAULT_SETTINGS = TenantSettings()


class SettingChanges(TypedDict, total=False):
    """Changes of some `TenantSettings`."""

    weight: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The tenant and the key of a request."""

    tenant: TenantId
    key_id: KeyId
    scopes: frozenset[str]
    models: frozenset[ModelId] | None
    """Allowed models; ``None`` means all."""

    tenant_limits: RateLimits = UNLIMITED
    key_limits: RateLimits = UNLIMITED
    tenant_settings: TenantSettings = DEFAULT_SETTINGS


@dataclass(frozen=True, slots=True)
class Portion:
    """Pairs of one job that go to a replica together, in columns as in `TokenizedJob`."""

    request_id: RequestId
    input_ids: bytes
    lengths: tuple[int, ...]
    query_tokens: tuple[int, ...]

    @property
    def tokens(self) -> Tokens:
        return Tokens(len(self.input_ids) // INPUT_ID_BYTES)


@dataclass(frozen=True, slots=True)
class PortionScores:
    """One logit per pair, in order, and timings."""

    logits: tuple[float, ...]
    replica_id: str
    queue_wait_s: Seconds
    """From arrival at the replica until the batch started."""

    run_s: Seconds
    """Of the whole batch."""

    tokens_per_s: float
    """Recent speed of the replica; 0 if not known yet."""


@dataclass(frozen=True, slots=True)
class JobScores:
    """One logit per pair, in order."""

    logits: tuple[float, ...]
    queue_wait_s: Seconds
    """The longest wait of any portion."""

    run_s: Seconds
    """Sum over the portions."""


@dataclass(slots=True)  # Not frozen: 10,000 frozen ones take the event loop 4 ms more.
class RankedDocument:
    """A ranked document. ``index`` is its position in the request."""

    index: int
    logit: float
    truncated: bool
    span: tuple[int, int] | None = None
    """Start and end of the best window in code points, with ``Overflow.CHUNK``."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a request."""

    request_id: RequestId
    created_at: Moment
    model: ModelId
    results: tuple[RankedDocument, ...]
    """Best first."""

    documents: int
    """Charged pairs or windows, including those outside ``top_n``."""

    tokens: Tokens
    charge: Credits
    queue_wait_s: Seconds
    run_s: Seconds
    rate_limits: tuple[RateLimitState, ...] = ()
    """For each kind of limit, the state with the least remaining."""
    warnings: tuple[str, ...] = ()

    replayed: bool = False
    """Whether all fields but ``rate_limits`` are those of an earlier request."""
