"""The log line of a request suffices for billing and debugging, and contains no text of it."""

import logging

import pytest

from serve_app.domain.errors import EngineFailure, LedgerUnavailable
from serve_app.telemetry.logs import emit, failure_fields
from tests.support.app import LEDGER_DOWN_KEY, FakeApp
from tests.support.fakes import FailingJobScorer

TEXTS = {
    "query": "xylophone",
    "documents": ["zeppelin", {"text": "quagmire " * 20, "walrus": "ocelot"}],
}
WORDS = ["xylophone", "zeppelin", "quagmire", "walrus", "ocelot", "rk-good"]


def test_an_answered_request_is_one_log_line(app: FakeApp) -> None:
    app.rerank(**TEXTS, top_n=1)

    assert app.lines == [
        {
            "event": "rerank_request",
            "id": "rr_1",
            "x_request_id": "rr_1",
            "status": 200,
            "code": "ok",
            "duration_s": 0.0,
            "tenant": "acme",
            "key_id": "k1",
            "documents": 2,
            "timeout_s": 5,
            "model": "mini",
            "results": 1,
            "tokens": 17,
            "charge_micro_dollars": 16,
            "queue_wait_s": 0.0125,
            "run_s": 0.25,
            "truncated_documents": 0,
        }
    ]


def test_scored_pairs_are_logged_and_counted_as_documents(app: FakeApp) -> None:
    pairs = [["xylophone", "zeppelin"], ["walrus", "quagmire " * 20]]

    app.send("POST", "/v1/score", body={"pairs": pairs})

    (line,) = app.lines
    assert (line["event"], line["documents"], line["results"]) == ("rerank_request", 2, 2)
    assert (line["charge_micro_dollars"], line["truncated_documents"]) == (16, 1)
    assert not [word for word in WORDS if word in str(line)]
    assert app.total("rerank_documents") == 2
    assert app.total("rerank_credits") == 16
    assert app.total("rerank_truncated_documents") == 1


def test_windows_are_logged_and_counted_as_documents(app: FakeApp) -> None:
    """The logs are compared with the ledger, which charges windows."""
    app.rerank(documents=["grass " * 13], overflow="chunk")

    (line,) = app.lines
    assert (line["documents"], line["results"], line["charge_micro_dollars"]) == (2, 1, 16)
    assert app.total("rerank_documents") == 2


def test_an_answered_request_is_counted(app: FakeApp) -> None:
    app.rerank(**TEXTS)

    assert app.codes() == ["ok"]
    assert app.total("rerank_documents") == 2
    assert app.total("rerank_tokens") == 17
    assert app.total("rerank_credits") == 16
    assert app.total("rerank_truncated_documents") == 1


def test_a_refused_request_is_counted_without_its_documents(app: FakeApp) -> None:
    app.rerank(top_n=-1)

    assert app.codes() == ["invalid_request"]
    assert app.total("rerank_documents") == app.total("rerank_credits") == 0
    (line,) = app.lines
    assert (line["status"], line["code"], line["key_id"]) == (400, "invalid_request", "k1")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({}, id="answered"),
        pytest.param({"top_n": "walrus"}, id="a wrong type"),
        pytest.param({"truncation_strategy": "walrus"}, id="a wrong choice"),
        pytest.param({"documents": ["zeppelin", ["quagmire"]]}, id="a wrong document"),
        pytest.param({"documents": ["zeppelin", {"walrus": "quagmire"}]}, id="no text"),
        pytest.param({"query": "xylophone " * 100}, id="a long query"),
        pytest.param({"model": ["walrus"]}, id="a wrong model"),
    ],
)
def test_no_log_line_and_no_metric_contains_request_text(
    app: FakeApp, broken: dict[str, object]
) -> None:
    answer = app.rerank(**(TEXTS | broken))

    logged = str(app.lines) + str(app.values)
    assert not [word for word in WORDS if word in logged]
    if answer.status_code != 200:
        assert not [word for word in WORDS if word in answer.text]


def test_a_model_that_is_not_served_is_not_logged(app: FakeApp) -> None:
    """The name is the client's own text. The response repeats it, but the log does not."""
    assert app.rerank(model="walrus").status_code == 404
    assert "walrus" not in str(app.lines)


def test_an_exception_message_with_a_document_is_not_logged() -> None:
    app = FakeApp(scorer=FailingJobScorer(ValueError("cannot score 'zeppelin'")))

    app.rerank(**TEXTS)

    assert "zeppelin" not in str(app.lines)
    app.close()


def test_an_unknown_secret_is_not_logged(app: FakeApp) -> None:
    app.send("POST", "/v1/rerank", key="rk-guessed-secret", body=TEXTS)

    (line,) = app.lines
    assert "rk-guessed-secret" not in str(line)
    assert (line["status"], "tenant" in line) == (401, False)


def test_the_reason_of_our_errors_is_only_logged(app: FakeApp) -> None:
    answer = app.send("POST", "/v1/rerank", key=LEDGER_DOWN_KEY)

    (line,) = app.lines
    assert line["reason"] == "connect to 10.0.0.7 refused"
    assert "10.0.0.7" not in answer.text


def test_the_frames_of_a_cause_are_kept_without_its_message() -> None:
    try:
        try:
            raise KeyError("zeppelin")
        except KeyError as cause:
            raise RuntimeError("xylophone") from cause
    except RuntimeError as error:
        fields = failure_fields(error)

    traceback = str(fields["traceback"])
    assert traceback.startswith("RuntimeError")
    assert "caused by KeyError" in traceback
    assert failure_fields(EngineFailure("NaN")) == {"error": "EngineFailure", "reason": "NaN"}
    assert "traceback" not in failure_fields(LedgerUnavailable("down"))


@pytest.mark.parametrize(("status", "level"), [(200, "INFO"), (429, "INFO"), (503, "ERROR")])
def test_a_log_line_has_every_field_as_an_attribute(
    caplog: pytest.LogCaptureFixture, status: int, level: str
) -> None:
    with caplog.at_level(logging.INFO, logger="serve_app.requests"):
        emit({"event": "e", "status": status, "code": "overloaded"})

    (record,) = caplog.records
    assert (record.name, record.levelname) == ("serve_app.requests", level)
    assert record.getMessage() == "e"
    assert (vars(record)["status"], vars(record)["code"]) == (status, "overloaded")
