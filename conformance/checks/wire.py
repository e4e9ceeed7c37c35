"""The fields and types of requests and answers."""

from collections.abc import Mapping

from conformance.check import Check
from conformance.server import NotApplicable, Server, Unmet, fits, shown
from conformance.texts import DOCUMENTS, QUERY


def answer(server: Server) -> None:
    server.answered(QUERY, DOCUMENTS)


def content_type(server: Server) -> None:
    kind = server.answered(QUERY, DOCUMENTS).headers.get("content-type", "")
    if kind.partition(";")[0].strip() != "application/json":
        raise Unmet("content-type: application/json", kind)


def indices(server: Server) -> None:
    server.scores(QUERY, DOCUMENTS)


def order(server: Server) -> None:
    found = server.ranked(QUERY, DOCUMENTS)
    if server.family.order == "request":
        indexes = [each.index for each in found]
        if indexes != sorted(indexes):
            raise Unmet("the order of the request", f"{indexes}")
        return
    scores = [each.score for each in found]
    if scores != sorted(scores, reverse=True):
        raise Unmet("scores in descending order", f"{scores}")


def top(server: Server) -> None:
    name = _top_field(server)
    best = [each.index for each in server.ranked(QUERY, DOCUMENTS)][:2]
    cut = [each.index for each in server.ranked(QUERY, DOCUMENTS, **{name: 2})]
    if cut != best:
        raise Unmet(f"the results {best} with {name}: 2", f"{cut}")


def top_above_count(server: Server) -> None:
    name = _top_field(server)
    found = server.ranked(QUERY, DOCUMENTS, **{name: 50})
    if len(found) != len(DOCUMENTS):
        raise Unmet(f"{len(DOCUMENTS)} results with {name}: 50", f"{len(found)} results")


def documents_back(server: Server) -> None:
    name = _return_field(server)
    for each in server.ranked(QUERY, DOCUMENTS, **{name: True}):
        if each.text != DOCUMENTS[each.index]:
            raise Unmet(f"result {each.index} with {DOCUMENTS[each.index]!r}", f"{each.text!r}")


def documents_absent(server: Server) -> None:
    _return_field(server)
    texts = [each.text for each in server.ranked(QUERY, DOCUMENTS) if each.text is not None]
    if texts:
        raise Unmet("no documents in the answer", f"{texts}")


def object_documents(server: Server) -> None:
    if not server.family.object_documents:
        raise NotApplicable("documents are strings only")
    objects = [{"text": text} for text in DOCUMENTS]
    expected, actual = server.scores(QUERY, DOCUMENTS), server.scores(QUERY, objects)
    server.expect_equal(expected, actual, "the scores of the strings")


def client_fields(server: Server) -> None:
    _same_scores_with(server, dict(server.family.client_fields))


def null_fields(server: Server) -> None:
    _same_scores_with(server, dict.fromkeys(server.family.null_fields))


def harmless_field(server: Server) -> None:
    _same_scores_with(server, {"user": "a-user"})


def raw_scores(server: Server) -> None:
    name = server.family.raw_field
    if name is None:
        raise NotApplicable("it has no option for raw scores")
    plain = server.ranked(QUERY, DOCUMENTS)
    raw = server.ranked(QUERY, DOCUMENTS, **{name: True})
    if [each.index for each in raw] != [each.index for each in plain]:
        raise Unmet("the same order", f"{[each.index for each in raw]}")
    if all(0 <= each.score <= 1 for each in raw):
        raise Unmet("logits, which are not all between 0 and 1", f"{[each.score for each in raw]}")


def models(server: Server) -> None:
    route = server.family.models
    if route is None:
        raise NotApplicable("it has no such route")
    response = server.send("GET", route.path)
    if response.status_code != 200:
        raise Unmet(f"status 200 for GET {route.path}", shown(response))
    fits(response, route.answer)


SCORE_FORMS = (
    ("text_1", "text_2"),
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
)


def score_forms(server: Server) -> None:
    _require_score_route(server)
    expected = server.scores(QUERY, DOCUMENTS)
    for first, second in SCORE_FORMS:
        fields = {first: QUERY, second: list(DOCUMENTS)}
        server.expect_equal(expected, _scores(server, fields), f"with {first} and {second}")


def score_pairs(server: Server) -> None:
    _require_score_route(server)
    queries = [QUERY, "what do penguins eat"]
    texts = list(DOCUMENTS[:2])
    alone = [
        score
        for pair in zip(queries, texts, strict=True)
        for score in server.scores(pair[0], [pair[1]])
    ]
    together = _scores(server, {"text_1": queries, "text_2": texts})
    server.expect_equal(alone, together, "the scores of the pairs alone")
    single = _scores(server, {"text_1": queries[0], "text_2": texts[0]})
    server.expect_equal(alone[:1], single, "the score of two strings")


def _require_score_route(server: Server) -> None:
    if server.family.order != "request":
        raise NotApplicable("a request has one query")


def _scores(server: Server, texts: Mapping[str, object]) -> list[float]:
    """Return the scores of texts in fields with the given names."""
    usual = server.family.request("", [])
    others = {name: value for name, value in server.fields("", []).items() if name not in usual}
    response = server.post(others | dict(texts))
    if response.status_code != 200:
        raise Unmet(f"status 200 for {' and '.join(texts)}", shown(response))
    fits(response, server.family.answer)
    return [each.score for each in server.results(response)]


def _top_field(server: Server) -> str:
    if server.family.top_field is None:
        raise NotApplicable("it has no option for the number of results")
    return server.family.top_field


def _return_field(server: Server) -> str:
    if server.family.return_field is None:
        raise NotApplicable("it has no option for documents in the answer")
    return server.family.return_field


def _same_scores_with(server: Server, options: dict[str, object]) -> None:
    if not options:
        raise NotApplicable("its clients send no such fields")
    expected, actual = server.scores(QUERY, DOCUMENTS), server.scores(QUERY, DOCUMENTS, **options)
    server.expect_equal(expected, actual, f"the same scores with {', '.join(options)}")


CHECKS = (
    Check("wire.answer", "A request is answered with the fields that clients read.", answer),
    Check("wire.content-type", "An answer has the content type of JSON.", content_type),
    Check("wire.indices", "There is one result for each position in the request.", indices),
    Check("wire.order", "Results are in order of score, or of the request.", order),
    Check("wire.top", "The requested number of results are the best ones.", top),
    Check("wire.top-above-count", "More results than documents can be requested.", top_above_count),
    Check("wire.documents-back", "Results contain their documents on request.", documents_back),
    Check("wire.documents-absent", "They do not contain them otherwise.", documents_absent),
    Check("wire.object-documents", "Documents can be objects with a text.", object_documents),
    Check("wire.client-fields", "The fields that clients send are accepted.", client_fields),
    Check("wire.nulls", "Null in an optional field means absent.", null_fields),
    Check("wire.harmless-field", "An unknown field without effect is ignored.", harmless_field),
    Check("wire.raw-scores", "Raw scores are logits in the same order.", raw_scores),
    Check("wire.score-forms", "All names of the texts of a pair are read.", score_forms),
    Check("wire.score-pairs", "Pairs with several queries are scored.", score_pairs),
    Check("wire.models", "The route that describes the models has the right form.", models),
)
