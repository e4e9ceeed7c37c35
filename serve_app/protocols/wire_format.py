"""The interface of scoring wire formats, and the functions that they share."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from serve_app.domain.errors import InvalidRequest, TooLarge
from serve_app.domain.job import Idempotency, Job, TextPair
from serve_app.domain.model import Outcome, Overflow, RankedDocument, ServiceTier, Truncation
from serve_app.domain.ranking import relevance_score
from serve_app.domain.units import Instant, ModelId, RequestId, Seconds
from serve_app.protocols.json_body import DEFAULT_LIMITS, JsonLimits, read_object, unicode_fault
from serve_app.protocols.limits import Limits
from serve_app.protocols.problem_body import RenderProblem, render_problem
from serve_app.protocols.wire_schema import (
    ApiVersion,
    BilledUnits,
    Meta,
    MetaTokens,
    RelevantSpan,
    Usage,
)

DOCUMENTS_PER_SEARCH_UNIT = 100
"""Cohere's definition."""

WARNINGS_MAX = 20

Fields = Mapping[str, object]
"""A JSON object's fields, without nulls."""

ANSWER_OPTIONS: Mapping[str, tuple[object, ...]] = {
    # Texts.
    "query": (),
    "texts": (),
    # Number and content of the results.
    "top_n": (),
    "top_k": (),
    "min_score": (),
    "score_threshold": (),
    "return_documents": (False,),
    "return_text": (False,),
    "rank_fields": (),
    "relevant_spans": ({"mode": "disabled"},),
    # Truncation and windows.
    "overflow": ("truncate",),
    "max_chunks_per_doc": (1,),
    "truncate": (True, "END"),
    "truncation": (True,),
    "truncation_direction": ("Right",),
    "truncation_side": ("right",),
    "truncate_prompt_tokens": (-1,),
    "max_tokens_per_query": (0,),
    "max_tokens_per_doc": (0,),
    # Meaning of a score.
    "instruction": ("",),
    "normalize": (True,),
    "raw_scores": (False,),
    "use_activation": (True,),
}
"""Fields of all APIs that change the answer, and their values without an effect."""

ResolveModel = Callable[[str | None], ModelId]
"""Maps a request's ``model``, which may be absent, to an id."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Request metadata from outside the body."""

    request_id: RequestId
    timeout_s: Seconds
    deadline: Instant
    idempotency: Idempotency | None = None


class ParsedRequest(Protocol):
    """A job, and what rendering its answer needs."""

    @property
    def job(self) -> Job: ...


Parsed = TypeVar("Parsed", bound=ParsedRequest)


@dataclass(frozen=True, slots=True)
class WireFormat(Generic[Parsed]):
    """The functions of one wire format."""

    parse: Callable[[Fields, Limits, Envelope, ResolveModel], Parsed]
    """Raises: InvalidRequest, which names the field; TooLarge."""

    render: Callable[[Outcome, Parsed], bytes]
    render_problem: RenderProblem = render_problem
    headers: Callable[[Outcome], Mapping[str, str]] = lambda _outcome: {}
    choose: Callable[[Fields], "WireFormat[Any]"] | None = None
    """Returns the format of a body, on routes that several share."""

    def of(self, fields: Fields) -> "WireFormat[Any]":
        return self.choose(fields) if self.choose else self


class JobFields(Protocol):
    """What every request has for its job."""

    @property
    def model(self) -> str | None: ...

    @property
    def truncation_strategy(self) -> str | None: ...

    @property
    def service_tier(self) -> str | None: ...


def read_fields(body: bytes | bytearray, limits: JsonLimits = DEFAULT_LIMITS) -> Fields:
    """Return the fields of a body without nulls. Raises: InvalidRequest, TooLarge."""
    return {name: value for name, value in read_object(body, limits).items() if value is not None}


def check_supported(fields: Fields, known: Collection[str], ignored: Collection[str] = ()) -> None:
    """Refuse what the client would otherwise be charged for without getting it.

    A field of `ANSWER_OPTIONS` must be ``known`` to the route or have no effect. Those in
    ``ignored`` cannot change this route's answer.

    Raises: InvalidRequest.
    """
    options = [name for name in fields if name in ANSWER_OPTIONS and name not in known]
    for name in options:
        value = fields[name]
        # The types too, because 1 == True.
        harmless = any(type(value) is type(each) and value == each for each in ANSWER_OPTIONS[name])
        if not harmless and name not in ignored:
            names = ", ".join(known)
            raise InvalidRequest(name, f"is not supported by this route, which reads {names}")


def job_of(  # noqa: PLR0913 - one for each option of a request
    request: JobFields,
    envelope: Envelope,
    resolve_model: ResolveModel,
    pairs: tuple[TextPair, ...],
    *,
    top_n: int | None = None,
    document_tokens_max: int | None = None,
    overflow: Overflow = Overflow.TRUNCATE,
    windows_max: int = 1,
    document_windows_max: int | None = None,
    query_field: str = "query",
    document_field: str = "documents[{index}]",
) -> Job:
    """Return the job of a valid request.

    A ``top_n``, ``document_tokens_max`` or ``document_windows_max`` of 0 means absent. Queries are
    truncated only together with documents.
    """
    strategy = Truncation(request.truncation_strategy or Truncation.ONLY_DOCUMENT)
    return Job(
        request_id=envelope.request_id,
        model=resolve_model(request.model),
        pairs=pairs,
        top_n=top_n or None,
        truncation=strategy if overflow is Overflow.TRUNCATE else Truncation.ONLY_DOCUMENT,
        timeout_s=envelope.timeout_s,
        deadline=envelope.deadline,
        document_tokens_max=document_tokens_max or None,
        overflow=overflow,
        windows_max=windows_max,
        document_windows_max=document_windows_max or None,
        service_tier=ServiceTier(request.service_tier or ServiceTier.DEFAULT),
        idempotency=envelope.idempotency,
        query_field=query_field,
        document_field=document_field,
    )


def overflow_of(asked: Mapping[str, Overflow | None]) -> Overflow:
    """Return what the fields ``asked`` mean together; ``None`` stands for an absent field.

    Raises: InvalidRequest if two contradict each other.
    """
    meant = [(name, overflow) for name, overflow in asked.items() if overflow is not None]
    for name, overflow in meant[1:]:
        if overflow is not meant[0][1]:
            raise InvalidRequest(name, f"contradicts {meant[0][0]}")
    return meant[0][1] if meant else Overflow.TRUNCATE


def overflow_of_flag(*, truncation: bool | None) -> Overflow | None:
    if truncation is None:
        return None
    return Overflow.TRUNCATE if truncation else Overflow.ERROR


def check_count(field: str, items: object, limits: Limits, unit: str) -> None:
    """Refuse a list whose validation would take long. Raises: TooLarge."""
    if isinstance(items, list) and len(items) > limits.documents_per_request_max:
        raise TooLarge(field, limits.documents_per_request_max, unit)


def check_query(path: str, query: str, limits: Limits) -> None:
    """Raises: InvalidRequest if ``query`` is blank or too long."""
    if not query.strip():
        raise InvalidRequest(path, "must not be blank")
    if len(query) > limits.query_characters_max:
        raise InvalidRequest(path, f"must have at most {limits.query_characters_max} characters")


def check_unicode(texts: Iterable[tuple[str, str]]) -> None:
    """Check texts, each given with its path. Raises: InvalidRequest."""
    for path, text in texts:
        if fault := unicode_fault(text):
            raise InvalidRequest(path, fault)


def unknown_field_warnings(names: Iterable[str]) -> tuple[str, ...]:
    """Names after `WARNINGS_MAX` share one warning for ``...``."""
    distinct: dict[str, None] = {}  # Unlike a set, keeps the order.
    for name in names:
        if len(distinct) == WARNINGS_MAX and name not in distinct:
            distinct["..."] = None
            break
        distinct[name] = None
    return tuple(f"The field '{name}' is unknown and was ignored." for name in distinct)


def score_of(ranked: RankedDocument, *, raw: bool) -> float:
    """Return a score from 0 to 1, or the logit if ``raw``."""
    return ranked.logit if raw else relevance_score(ranked.logit)


def relevant_spans(ranked: RankedDocument, *, raw: bool) -> list[RelevantSpan] | None:
    if ranked.span is None:
        return None
    start, end = ranked.span
    return [RelevantSpan(start=start, end=end, score=score_of(ranked, raw=raw))]


def usage(outcome: Outcome) -> Usage:
    return Usage(
        prompt_tokens=outcome.tokens,
        total_tokens=outcome.tokens,
        documents=outcome.documents,
        search_units=_search_units(outcome),
    )


def meta(outcome: Outcome, warnings: Iterable[str]) -> Meta:
    return Meta(
        api_version=ApiVersion(),
        billed_units=BilledUnits(
            search_units=_search_units(outcome),
            input_tokens=outcome.tokens,
            total_tokens=outcome.tokens,
        ),
        tokens=MetaTokens(input_tokens=outcome.tokens),
        charge_micro_dollars=outcome.charge,
        warnings=[*outcome.warnings, *warnings],
    )


def _search_units(outcome: Outcome) -> int:
    return -(-outcome.documents // DOCUMENTS_PER_SEARCH_UNIT)
