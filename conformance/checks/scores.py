"""A score depends only on its query and document."""

import math
from concurrent.futures import ThreadPoolExecutor

from conformance.check import Check
from conformance.server import NotApplicable, Server, Unmet, fits, shown
from conformance.texts import DOCUMENTS, LONG, PROSE, QUERY, QUESTIONS, RIGHT, UNICODE

CLIENTS = 8


def relevance(server: Server) -> None:
    for query, right, wrong in QUESTIONS:
        low, high = server.scores(query, [wrong, right])
        if not high > low:
            raise Unmet(f"{right!r} above {wrong!r}", f"{high:.5f} and {low:.5f}")


def unit_range(server: Server) -> None:
    if not server.family.unit_scores:
        raise NotApplicable("its scores have no bounds")
    scores = server.scores(QUERY, DOCUMENTS)
    if not all(0 <= score <= 1 for score in scores):
        raise Unmet("scores between 0 and 1", f"{scores}")


def repeatable(server: Server) -> None:
    server.expect_equal(
        server.scores(QUERY, DOCUMENTS), server.scores(QUERY, DOCUMENTS), "the scores again"
    )


def independent_of_others(server: Server) -> None:
    alone = server.scores(QUERY, [RIGHT])
    among = server.scores(QUERY, [*DOCUMENTS, PROSE * 3])
    server.expect_equal(alone, [among[DOCUMENTS.index(RIGHT)]], "the score alone")


def independent_of_order(server: Server) -> None:
    forwards = server.scores(QUERY, DOCUMENTS)
    backwards = server.scores(QUERY, DOCUMENTS[::-1])[::-1]
    server.expect_equal(forwards, backwards, "the scores in request order")


def duplicates(server: Server) -> None:
    scores = server.scores(QUERY, [RIGHT, DOCUMENTS[0], RIGHT])
    server.expect_equal(scores[:1], scores[2:], "the score of the same document")


def independent_of_clients(server: Server) -> None:
    alone = [server.scores(query, list(texts)) for query, *texts in QUESTIONS]
    both = list(zip(QUESTIONS * 2, alone * 2, strict=True))[:CLIENTS]
    with ThreadPoolExecutor(CLIENTS) as threads:
        found = list(threads.map(lambda each: server.scores(each[0][0], list(each[0][1:])), both))
    for (_, expected), actual in zip(both, found, strict=True):
        server.expect_equal(expected, actual, "the scores of a client that is alone")


def empty_document(server: Server) -> None:
    _finite_or_refused(server, ["", RIGHT])


def long_document(server: Server) -> None:
    _finite_or_refused(server, [RIGHT, LONG])


def unicode(server: Server) -> None:
    name = server.family.return_field
    found = server.ranked(QUERY, UNICODE, **({name: True} if name else {}))
    for each in found:
        if not math.isfinite(each.score):
            raise Unmet("a finite score", f"{each.score}")
        if name and each.text != UNICODE[each.index]:
            raise Unmet(f"the document {UNICODE[each.index]!r}", f"{each.text!r}")


def _finite_or_refused(server: Server, documents: list[str]) -> None:
    response = server.post(server.fields(QUERY, documents))
    if response.status_code in server.family.invalid | server.family.too_large:
        return
    if response.status_code != 200:
        raise Unmet("status 200, or a refusal", shown(response))
    fits(response, server.family.answer)
    if not all(math.isfinite(each.score) for each in server.results(response)):
        raise Unmet("finite scores", shown(response))


CHECKS = (
    Check("scores.relevance", "A right passage is above a wrong one.", relevance),
    Check("scores.range", "Scores are between 0 and 1.", unit_range),
    Check("scores.repeatable", "The same request has the same scores.", repeatable),
    Check(
        "scores.other-documents",
        "A score does not depend on the request's other documents.",
        independent_of_others,
    ),
    Check("scores.order", "A score does not depend on the documents' order.", independent_of_order),
    Check("scores.duplicates", "Equal documents have equal scores.", duplicates),
    Check(
        "scores.other-clients",
        "A score does not depend on requests at the same time.",
        independent_of_clients,
    ),
    Check("scores.empty-document", "An empty document is scored or refused.", empty_document),
    Check("scores.long-document", "A very long document is scored or refused.", long_document),
    Check("scores.unicode", "Texts in any script are scored and returned unchanged.", unicode),
)
