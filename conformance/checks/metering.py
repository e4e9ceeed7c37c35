"""Usage and charges match the request, and no option is ignored."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import httpx

from conformance.check import Check
from conformance.families import FAMILIES
from conformance.family import Option, Usage
from conformance.server import NotApplicable, NotRun, Server, Unmet, fits, shown
from conformance.texts import DOCUMENTS, LONG_DOCUMENTS, PROSE, QUERY

DOCUMENTS_PER_SEARCH_UNIT = 100
CHARACTERS_PER_TOKEN_MIN = 2
"""English prose has about four."""


def reported(server: Server) -> None:
    _usage(server, DOCUMENTS)


def tokens_add_up(server: Server) -> None:
    alone = [_tokens(server, [text]) for text in DOCUMENTS]
    together = _tokens(server, DOCUMENTS)
    if together != sum(alone):
        raise Unmet(f"{sum(alone):g} tokens, the sum of the documents alone", f"{together:g}")


def tokens_not_characters(server: Server) -> None:
    tokens, most = _tokens(server, [PROSE]), len(PROSE) // CHARACTERS_PER_TOKEN_MIN
    if tokens > most:
        raise Unmet(f"at most {most} for {len(PROSE)} characters of English", f"{tokens:g}")


def all_documents_count(server: Server) -> None:
    if server.family.top_field is None:
        raise NotApplicable("it has no option for the number of results")
    every, cut = (
        _usage(server, DOCUMENTS, **options) for options in ({}, {server.family.top_field: 1})
    )
    if every != cut:
        raise Unmet(f"{every}", f"{cut} with {server.family.top_field}: 1")


def search_units(server: Server) -> None:
    for documents, expected in ((1, 1), (DOCUMENTS_PER_SEARCH_UNIT + 1, 2)):
        found = _usage(server, ["a"] * documents).search_units
        if found is None:
            raise NotApplicable("it does not count search units")
        if found != expected:
            raise Unmet(f"{expected} search units for {documents} documents", f"{found:g}")


def option(name: str, server: Server) -> None:
    """Send a field in a request whose answer it must change."""
    for each in server.family.options:
        if each.name == name:
            return _honoured_or_refused(server, each)
    raise NotApplicable("it has this option, or one in its place")


def refused_is_free(server: Server) -> None:
    def refusals() -> None:
        fields = server.fields(QUERY, DOCUMENTS)
        server.post(fields | {server.family.documents_field: []})
        server.post(fields | {server.family.documents_field: 5})
        server.post(fields | {server.family.query_field: 5})
        server.post([fields])

    charged = _charge(server, refusals)
    if charged != 0:
        raise Unmet("no charge for four refused requests", f"{charged:g}")


def charges_add_up(server: Server) -> None:
    def send(*documents: str) -> Callable[[], object]:
        return lambda: server.answered(QUERY, documents)

    alone = [_charge(server, send(text)) for text in DOCUMENTS[:2]]
    together = _charge(server, send(*DOCUMENTS[:2]))
    if not together > 0:
        raise Unmet("a charge for an answered request", f"{together:g}")
    if together > sum(alone):
        raise Unmet(f"at most {sum(alone):g}, the sum of the documents alone", f"{together:g}")


def _usage(server: Server, documents: Any, **options: object) -> Usage:
    """Return the usage of a request. Raises: Unmet, NotApplicable."""
    response = server.answered(QUERY, documents, **options)
    usage = server.family.usage(response)
    if usage == Usage():
        if server.family.usage_required:
            raise Unmet("usage in the answer", shown(response))
        raise NotApplicable("its answers do not have to report usage")
    return usage


def _tokens(server: Server, documents: Any) -> float:
    tokens = _usage(server, documents).tokens
    if tokens is None:
        raise NotApplicable("its answers do not have to report tokens")
    return tokens


def _honoured_or_refused(server: Server, each: Option) -> None:
    documents = LONG_DOCUMENTS if each.documents is None else each.documents
    fields = server.fields(QUERY, documents)
    having = server.post(fields | {each.name: each.value})
    if 400 <= having.status_code < 500:
        return
    without = server.post(fields)
    for response in (having, without):
        if response.status_code != 200:
            raise Unmet("status 200, or a refusal", shown(response))
        fits(response, server.family.answer)
    if not _differ(server, without, having):
        raise Unmet(
            f"another answer with {each.name}: {each.value}, or a refusal",
            "the same answer as without it",
        )


def _differ(server: Server, first: httpx.Response, second: httpx.Response) -> bool:
    """Return whether the results differ by more than the noise of scores."""
    ones, others = server.results(first), server.results(second)
    if len(ones) != len(others) or _names(first.json()) != _names(second.json()):
        return True
    return not all(
        (one.index, one.text) == (other.index, other.text) and server.equal(one.score, other.score)
        for one, other in zip(ones, others, strict=True)
    )


def _names(body: object) -> set[str]:
    """Return the names of all fields in a body, at any depth, except of warnings."""
    if isinstance(body, list):
        return set().union(*map(_names, body))
    if not isinstance(body, dict):
        return set()
    return (set(body) - {"warnings"}).union(*map(_names, body.values()))


def _charge(server: Server, work: Callable[[], object]) -> float:
    """Return what the server charges for ``work``. Raises: NotRun, Unmet."""
    url, name = server.target.usage_url, server.target.usage_field
    if url is None or name is None:
        raise NotRun("needs --usage-url and --usage-field")
    before = _charged(server, url, name)
    work()
    return _charged(server, url, name) - before


def _charged(server: Server, url: str, name: str) -> float:
    response = server.http.get(url, headers=server.headers())
    if response.status_code != 200:
        raise Unmet(f"status 200 for GET {url}", shown(response))
    return sum(_values(response.json(), name))


def _values(body: object, name: str) -> Iterator[float]:
    if isinstance(body, list):
        for each in body:
            yield from _values(each, name)
    elif isinstance(body, dict):
        for key, value in body.items():
            if key == name and isinstance(value, int | float):
                yield value
            else:
                yield from _values(value, name)


OPTIONS = tuple(dict.fromkeys(each.name for family in FAMILIES.values() for each in family.options))

CHECKS = (
    Check("metering.reported", "An answer reports its usage.", reported),
    Check(
        "metering.sum", "The tokens of a request are the sum of its documents alone.", tokens_add_up
    ),
    Check("metering.tokens", "Tokens are counted, not characters.", tokens_not_characters),
    Check(
        "metering.top",
        "Usage does not depend on the number of results.",
        all_documents_count,
    ),
    Check(
        "metering.search-units",
        "A search unit is a request with up to 100 documents.",
        search_units,
    ),
    *(
        Check(
            f"metering.option-{name}",
            f"The option `{name}` changes the answer or is refused.",
            partial(option, name),
        )
        for name in OPTIONS
    ),
    Check("metering.refused", "A refused request is not charged.", refused_is_free),
    Check(
        "metering.charge", "A request costs at most what its documents cost alone.", charges_add_up
    ),
)
