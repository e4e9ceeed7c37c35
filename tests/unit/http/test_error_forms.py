"""Errors have the form of the wire format, with the headers of the default form."""

from typing import Any

import pytest

from serve_app.domain import errors
from serve_app.domain.units import Credits
from serve_app.protocols.infinity import InfinityError
from serve_app.protocols.problem_body import ErrorBody
from serve_app.protocols.tei import TeiError
from serve_app.protocols.voyage import VoyageError
from tests.support.app import FakeApp
from tests.support.fakes import FailingJobScorer

QUERY = "blue sky"
TEXTS = ["grass is green", "the sky is blue"]

FAILURES = [
    (errors.InvalidRequest("query", "leaves no room for a document"), 400, None),
    (errors.SpendCapReached("key", Credits(8)), 402, None),
    (errors.IdempotencyKeyReused("another request has this key"), 409, None),
    (errors.IdempotencyKeyInUse(12), 409, "12"),
    (errors.TooLarge("texts", 5, "texts"), 413, None),
    (errors.Overloaded(17), 429, "17"),
    (errors.RateLimited("key", "requests", 3, ()), 429, "3"),
    (errors.EngineFailure("10.0.0.7: CUDA error"), 500, None),
    (errors.NoReplica("10.0.0.7 gone"), 503, "5"),
    (errors.DeadlineExceeded(2.5), 504, None),
    (RuntimeError("hunter2"), 500, None),
]
each_failure = pytest.mark.parametrize(
    ("failure", "status", "retry_after"),
    FAILURES,
    ids=[type(failure).__name__ for failure, _, _ in FAILURES],
)


def failing(failure: Exception, path: str, body: dict[str, Any]) -> Any:
    app = FakeApp(scorer=FailingJobScorer(failure))
    answer = app.send("POST", path, body=body)
    app.close()
    assert app.ledger.charged == {}
    return answer


def check_headers(answer: Any, status: int, retry_after: str | None) -> None:
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert b"hunter2" not in answer.content
    assert b"10.0.0.7" not in answer.content


@each_failure
def test_infinity(failure: Exception, status: int, retry_after: str | None) -> None:
    answer = failing(failure, "/infinity/rerank", {"query": QUERY, "documents": TEXTS})

    check_headers(answer, status, retry_after)
    assert set(answer.json()) == {"error"}
    assert InfinityError.model_validate_json(answer.content).error.code == status


@each_failure
def test_nvidia(failure: Exception, status: int, retry_after: str | None) -> None:
    body = {"query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS]}
    answer = failing(failure, "/v1/ranking", body)

    check_headers(answer, status, retry_after)
    ErrorBody.model_validate_json(answer.content)


@each_failure
def test_tei(failure: Exception, status: int, retry_after: str | None) -> None:
    answer = failing(failure, "/rerank", {"query": QUERY, "texts": TEXTS})

    expected = {"InvalidRequest": 422, "EngineFailure": 424}.get(type(failure).__name__, status)
    check_headers(answer, expected, retry_after)
    error = TeiError.model_validate_json(answer.content)
    assert set(answer.json()) == {"error", "error_type"}
    assert (error.error_type == "Overloaded") == (status == 429)
    assert (error.error_type == "Backend") == (status in {500, 504})


@each_failure
def test_voyage(failure: Exception, status: int, retry_after: str | None) -> None:
    answer = failing(failure, "/voyage/v1/rerank", {"query": QUERY, "documents": TEXTS})

    check_headers(answer, status, retry_after)
    assert set(answer.json()) == {"detail"}
    VoyageError.model_validate_json(answer.content)
