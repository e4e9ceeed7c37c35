"""The responses to all errors that can happen during scoring."""

import pytest

from serve_app.domain import errors
from serve_app.domain.units import Credits, TenantId
from tests.support.app import House
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
def test_an_error_of_ours_is_answered_by_the_table(
    error: errors.RerankError, status: int, retry_after: str | None
) -> None:
    house = House(scorer=FailingJobScorer(error))

    answer = house.rerank()

    assert answer.status_code == status
    assert answer.headers.get("retry-after") == retry_after
    assert answer.json()["error"]["code"] == error.code
    assert answer.headers["x-request-id"] == answer.json()["id"] == "rr_1"
    assert b"10.0.0.7" not in answer.content
    assert (house.ledger.charged, house.ledger.available) == ({}, 1_000_000)
    assert house.codes() == [error.code]
    house.close()


@pytest.mark.parametrize(
    "error", [RuntimeError("password hunter2"), KeyError("x"), MemoryError(), TypeError()]
)
def test_an_unforeseen_exception_tells_the_client_nothing(error: Exception) -> None:
    house = House(scorer=FailingJobScorer(error))

    answer = house.rerank()

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert b"hunter2" not in answer.content
    assert house.ledger.available == 1_000_000
    (line,) = house.lines
    assert line["error"] == type(error).__name__
    assert "fakes.py" in str(line["traceback"])
    assert "hunter2" not in str(line)
    house.close()


def test_an_unforeseen_exception_of_a_small_route_is_answered_and_logged_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = "".join(["hunter", "2"])  # Not a literal, because tracebacks show source lines.

    def fail(_: object) -> None:
        raise RuntimeError(password)

    monkeypatch.setattr(type(house.service.catalogue), "readiness", fail)

    answer = house.send("GET", "/ready")

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    (line,) = house.lines
    assert (line["event"], line["error"]) == ("unexpected_failure", "RuntimeError")
    assert password not in str(line) + answer.text


def test_a_full_gate_answers_at_once_with_a_time_to_come_back() -> None:
    house = House()

    for filled in (
        house.gate.admit(TenantId("acme"), 10**9),
        house.body_gate.admit(TenantId("acme"), 10**9),
    ):
        with filled:
            answer = house.rerank()

        assert answer.status_code == 429
        assert answer.headers["retry-after"].isdigit()
    assert house.ledger.log == [], "a refusal writes nothing"
    house.close()


@pytest.mark.parametrize("path", ["/v1/rerank/", "/v1//rerank", "/v1/rerank/x", "/-/nothing"])
def test_an_unknown_route_is_answered_in_our_own_form(house: House, path: str) -> None:
    answer = house.send("POST", path)

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert path in answer.json()["message"]


def test_a_long_path_is_not_repeated_whole(house: House) -> None:
    assert len(house.send("GET", "/" + "x" * 5_000).content) < 1_000
