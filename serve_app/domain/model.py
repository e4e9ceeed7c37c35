"""The nouns of reranking. Frozen, plain, and free of any framework.

They follow a request through the service: a `serve_app.domain.job.Job` (text pairs) becomes a
`TokenizedJob` (pairs of token ids), is cut into `Portion`s, comes back as `PortionScores`, and
leaves as an `Outcome`. Portions and their scores cross Ray handles, so they hold bytes and tuples
only.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypedDict

from serve_app.domain.units import (
    Credits,
    KeyId,
    ModelId,
    RequestId,
    Seconds,
    TenantId,
    Tokens,
)

EMBEDDED = "embedded"
"""The model id that always names the default model, and the source that needs no hub."""

INPUT_ID_BYTES = 4
"""Token ids travel as little-endian int32."""


class Truncation(StrEnum):
    """What gives way when a pair is longer than the model reads."""

    ONLY_DOCUMENT = "only_document"
    """Cut the document's end; a query that leaves no room for one is refused."""

    LONGEST_FIRST = "longest_first"
    """Cut whichever of the two is longer, as the model's own tokenizer does."""


class ServiceTier(StrEnum):
    """How urgent a job is. None of them starves."""

    PRIORITY = "priority"
    """Before the others."""

    DEFAULT = "default"

    FLEX = "flex"
    """Cheaper, on capacity that the others leave."""


@dataclass(frozen=True, slots=True)
class Prices:
    """What a document costs in each tier, in micro-dollars."""

    default: int
    flex: int
    priority: int

    def of(self, tier: ServiceTier) -> int:
        prices = {ServiceTier.FLEX: self.flex, ServiceTier.PRIORITY: self.priority}
        return prices.get(tier, self.default)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """How much a key, or a tenant's keys together, may ask for; ``None`` means as much as it likes.

    A minute is any 60 seconds, a month the calendar's in UTC.
    """

    requests_per_minute_max: int | None = None
    documents_per_minute_max: int | None = None
    requests_at_once_max: int | None = None
    month_amount_max: Credits | None = None
    """What may be spent in a month, in micro-dollars."""


UNLIMITED = RateLimits()


class LimitChanges(TypedDict, total=False):
    """What some fields of `RateLimits` become; ``None`` lifts a limit."""

    requests_per_minute_max: int | None
    documents_per_minute_max: int | None
    requests_at_once_max: int | None
    month_amount_max: Credits | None


@dataclass(frozen=True, slots=True)
class RateLimitState:
    """Where a caller stands with one of its limits, this request included."""

    what: str
    """``requests`` or ``documents`` of any minute."""

    limit: int
    remaining: int
    reset_s: Seconds
    """Until all of ``limit`` is there again, if nothing more is asked for."""


WEIGHT_MAX = 1_000
"""Of one tenant; one of weight 1 beside it still gets a thousandth."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking: the tenant that is billed, through which key, and what the key may do."""

    tenant: TenantId
    key_id: KeyId
    scopes: frozenset[str]
    models: frozenset[ModelId] | None
    """Models the key may use; ``None`` means every model."""

    tenant_limits: RateLimits = UNLIMITED
    key_limits: RateLimits = UNLIMITED
    tenant_weight: int = 1
    """What the tenant gets of the scorers beside others while all of them wait; at least 1."""


@dataclass(frozen=True, slots=True)
class Pair:
    """One query and one document, tokenized, with the model's special tokens in place."""

    index: int
    """The pair's position in the request."""

    input_ids: bytes
    """Little-endian int32, the whole pair."""

    query_tokens: Tokens
    """How many leading tokens belong to the query's segment, its special tokens included."""

    truncated: bool
    """Whether any text of this pair was cut to fit the model."""

    @property
    def tokens(self) -> Tokens:
        return Tokens(len(self.input_ids) // INPUT_ID_BYTES)


@dataclass(frozen=True, slots=True)
class TokenizedJob:
    """Every pair of a job, in request order, and what they cost."""

    pairs: tuple[Pair, ...]

    @property
    def tokens(self) -> Tokens:
        return Tokens(sum(pair.tokens for pair in self.pairs))


@dataclass(frozen=True, slots=True)
class Portion:
    """Pairs of one job that travel together to one replica, laid end to end.

    Shapes, for P pairs of T tokens in all:
        input_ids     T int32, little-endian, pair after pair
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
    """What a scorer answers: one logit per pair, in the portion's order, and where time went."""

    logits: tuple[float, ...]
    replica_id: str
    queue_wait_s: Seconds
    """From arrival at the replica until the batch it travelled in had the device."""

    run_s: Seconds
    """The batch's own time on the device."""

    batch_tokens: Tokens


@dataclass(frozen=True, slots=True)
class JobScores:
    """One logit per pair, in request order."""

    logits: tuple[float, ...]
    queue_wait_s: Seconds
    """The longest wait of any portion."""

    run_s: Seconds
    """The sum over the portions."""


@dataclass(frozen=True, slots=True)
class RankedDocument:
    """A document's place in the answer; ``index`` is the position of its pair in the request."""

    index: int
    logit: float
    truncated: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer, what it cost, and where its time went."""

    request_id: RequestId
    model: ModelId
    results: tuple[RankedDocument, ...]
    """Best first."""

    documents: int
    """How many pairs were scored and charged, whether or not they are among the results."""

    tokens: Tokens
    charge: Credits
    queue_wait_s: Seconds
    run_s: Seconds
    rate_limits: tuple[RateLimitState, ...] = ()
    """One per limit that was set for the caller, the tightest of its kind."""


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """What a live scorer replica says of itself."""

    replica_id: str
    device: str
    precision: str
    description: str
    """What kind of model it runs, in words for a person."""


@dataclass(frozen=True, slots=True)
class ModelCard:
    """One served model, as `GET /v1/models` tells it."""

    id: ModelId
    source: str
    revision: str | None
    description: str
    """What kind of model it is, in words for a person."""

    precision: str
    """What its replicas compute in; the configured value while none has answered yet."""

    device: str | None
    """``None`` while no replica has answered yet."""

    prices: Prices
    pair_tokens_max: int
    ready: bool
    """Whether a replica answered when last asked."""

    aliases: tuple[str, ...] = ()
    """Other names that clients may write instead of ``id``."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a request would be answered now, and if not, why."""

    ready: bool
    ledger: bool
    models: tuple[tuple[ModelId, bool], ...]
    """The first is the default model: the one readiness depends on."""
