"""The responses to all errors that can happen during scoring."""

import pytest

from serve_app.domain import errors
from serve_app.domain.job import Job
from serve_app.domain.model import Caller, JobScores, RateLimitState
from serve_app.domain.tokenized import TokenizedJob
from serve_app.domain.units import Credits, Seconds, TenantId
from serve_app.http.problems import PROBLEMS, problem
from serve_app.ports import PortionReport, Quote
from tests.support.app import FakeApp, WordScorer
from tests.support.fakes import FailingJobScorer

ANSWERS = [
    (errors.InvalidRequest("query", "leaves no room for a document"), 400, None),
    (errors.OutOfCredit(Credits(9), Credits(8)), 402, None),
    (errors.Forbidden("the model 'mini'"), 403, None),
    (errors.NotFound("model 'mini'", "model"), 404, None),
    (errors.TooLarge("documents", 5, "documents"), 413, None),
    (errors.Overloaded(17), 429, "17"),
    (errors.EngineFailure("10.0.0.7: CUDA error"), 500, None),
    (errors.ReservationClosed("expired"), 503, "1"),
    (errors.LedgerUnavailable("10.0.0.7 refused"), 503, "2"),
    (errors.NoReplica("10.0.0.7 gone"), 503, "5"),
    (errors.ReplicaLost("10.0.0.7 gone"), 503, "5"),
    (errors.DeadlineExceeded(2.5), 504, None),
]


class DerivedByRay(errors.Overloaded):
    """An error as Ray re-raises it behind a handle: with a derived class and another ``str``."""

    def __str__(self) -> str:
        return "Traceback at 10.0.0.7"


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [*ANSWERS, (DerivedByRay(3), 429, "3")],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_our_errors_are_answered_as_in_the_table(
    error: errors.RerankError, status: int, retry_after: str | None
) -> None:
    app = FakeApp(scorer=FailingJobScorer(error))

    answer = app.rerank()

    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert answer.json()["error"]["code"] == error.code
    assert answer.headers["x-request-id"] == answer.json()["id"] == "rr_1"
    assert b"10.0.0.7" not in answer.content
    assert (app.ledger.charged, app.ledger.available) == ({}, 1_000_000)
    assert app.codes() == [error.code]
    app.close()


@pytest.mark.parametrize(
    ("granted", "error", "status"),
    [
        (0, errors.NoReplica("unused"), 402),
        (100, errors.EngineFailure("broken"), 500),
        (100, errors.NoReplica("gone"), 503),
        (100, errors.DeadlineExceeded(2.5), 504),
    ],
)
def test_errors_have_the_rate_limit_headers_if_the_limits_are_known(
    granted: int, error: Exception, status: int
) -> None:
    app = FakeApp(scorer=FailingJobScorer(error), granted=granted)
    app.ledger.rate_limits = (RateLimitState("documents", 50, 47, Seconds(8.2)),)

    answer = app.rerank()

    assert answer.status_code == status
    assert {name: answer.headers[name] for name in answer.headers if "ratelimit" in name} == {
        "x-ratelimit-limit-documents": "50",
        "x-ratelimit-remaining-documents": "47",
        "x-ratelimit-reset-documents": "9s",
    }
    app.close()


@pytest.mark.parametrize(
    "error", [RuntimeError("password hunter2"), KeyError("x"), MemoryError(), TypeError()]
)
def test_an_unexpected_exception_reveals_nothing(error: Exception) -> None:
    app = FakeApp(scorer=FailingJobScorer(error))

    answer = app.rerank()

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert b"hunter2" not in answer.content
    assert app.ledger.available == 1_000_000
    (line,) = app.lines
    assert line["error"] == type(error).__name__
    assert "fakes.py" in str(line["traceback"])
    assert "hunter2" not in str(line)
    app.close()


def test_an_unexpected_exception_in_another_route_is_answered_and_logged(
    app: FakeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "".join(["hunter", "2"])  # Not a literal, because tracebacks show source lines.

    def fail(_: object) -> None:
        raise RuntimeError(password)

    monkeypatch.setattr(type(app.service.catalogue), "readiness", fail)

    answer = app.send("GET", "/ready")

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    (line,) = app.lines
    assert (line["event"], line["error"]) == ("unexpected_failure", "RuntimeError")
    assert password not in str(line) + answer.text


def test_the_wait_at_a_limit_of_concurrent_requests_is_the_usual_duration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ThreeSecondScorer(WordScorer):
        async def score(
            self, caller: Caller, job: Job, tokenized: TokenizedJob, report: PortionReport
        ) -> JobScores:
            app.clock.advance(3)
            return await super().score(caller, job, tokenized, report)

    async def refuse(_caller: Caller, _quote: Quote) -> tuple[RateLimitState, ...]:
        raise errors.ConcurrencyLimited("key", 1)

    app = FakeApp(scorer=ThreeSecondScorer())
    app.rerank()
    monkeypatch.setattr(app.ledger, "reserve", refuse)

    answers = [app.rerank() for _ in range(2)]

    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert "At most 1 concurrent requests of one key" in answer.json()["message"]
        assert "Retry in 3 s" in answer.json()["message"]
    app.close()


class SlowAnswers(errors.ConcurrencyLimited):
    retry_after_s = 3_600


RETRYABLE = [
    *(errors.Overloaded(wait_s) for wait_s in (0, 0.2, 60.5, 1e9)),
    *(errors.RateLimited("key", "requests", wait_s, ()) for wait_s in (0, 60.5, 1e9)),
    *(errors.TooManyRefusals(200, wait_s) for wait_s in (0, 60.5, 1e9)),
    errors.ConcurrencyLimited("key", 1),
    SlowAnswers("key", 1),
    errors.ReservationClosed("expired"),
    errors.LedgerUnavailable("gone"),
    errors.NoReplica("gone"),
]


@pytest.mark.parametrize("error", RETRYABLE, ids=repr)
def test_every_429_and_503_has_a_retry_after_of_at_most_a_minute(error: Exception) -> None:
    answer = problem(error, "rr_1")

    assert answer.status_code in (429, 503)
    assert 1 <= int(answer.headers["retry-after"]) <= errors.RETRY_AFTER_S_MAX == 60


def test_every_retryable_error_is_tested() -> None:
    retryable = {kind for kind, row in PROBLEMS.items() if row.status in (429, 503)}

    assert retryable <= {type(error) for error in RETRYABLE}


def test_a_full_gate_answers_immediately_with_retry_after() -> None:
    app = FakeApp()

    for filled in (
        app.gate.admit(TenantId("acme"), 10**9),
        app.body_gate.admit(TenantId("acme"), 10**9),
    ):
        with filled:
            answer = app.rerank()

        assert answer.status_code == 429
        assert answer.headers["retry-after"].isdigit()
    assert app.ledger.log == [], "a refusal writes nothing"
    app.close()


@pytest.mark.parametrize("path", ["/v1/usage/x", "/v1/rerank/x", "/-/nothing"])
def test_an_unknown_route_is_answered_with_the_error_body(app: FakeApp, path: str) -> None:
    answer = app.send("POST", path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert path in answer.json()["message"]


def test_a_long_path_is_shortened(app: FakeApp) -> None:
    assert len(app.send("GET", "/" + "x" * 5_000).content) < 1_000
