"""Every check finds the fault that it is about, in a small server with Jina's API."""

import time

import httpx
import pytest

from conformance.check import Check, Outcome, result_of
from conformance.checks import CHECKS
from conformance.families import FAMILIES
from conformance.family import Family
from conformance.report import Report
from conformance.run import run
from conformance.server import Server, Target, Unmet
from tests.support.jina_server import (
    DOCUMENTS_MAX,
    KEY,
    LIMITED_KEY,
    MODEL,
    OPTIONS,
    JinaServer,
)

TARGET = Target(
    base_url="http://test/v1",
    model=MODEL,
    api_key=KEY,
    limited_api_key=LIMITED_KEY,
    documents_max=DOCUMENTS_MAX,
    usage_url="http://test/usage",
    usage_field="charged",
    origin="https://page.example",
)


def report_of(*faults: str) -> Report:
    transport = httpx.MockTransport(JinaServer(*faults).answer)
    return run(FAMILIES["jina"], TARGET, transport=transport)


def failed(*faults: str) -> set[str]:
    return {result.name for result in report_of(*faults).of(Outcome.FAILED)}


def test_a_good_server_passes_every_check() -> None:
    report = report_of()

    assert not report.of(Outcome.FAILED, Outcome.NOT_RUN)
    assert report.summary == f"jina: {report.passed} of {report.passed} checks passed (100.0%)"


@pytest.mark.parametrize(
    ("fault", "checks"),
    [
        ("string scores", {"wire.answer"}),
        ("NaN", {"wire.answer"}),
        ("plain text", {"wire.content-type"}),
        ("a result too few", {"wire.indices"}),
        ("unsorted", {"wire.order"}),
        ("ignores top_n", {"wire.top"}),
        ("the worst", {"wire.top"}),
        ("always returns documents", {"wire.documents-absent"}),
        ("changes texts", {"wire.documents-back", "scores.unicode"}),
        ("accepts anything", {"errors.documents-empty", "errors.document-null"}),
        ("no detail", {"errors.query-missing", "errors.wrong-key", "retries.limit"}),
        ("breaks on JSON", {"errors.json-broken", "errors.hostile"}),
        ("breaks on gzip", {"errors.compressed"}),
        ("breaks on paths", {"errors.unknown-path"}),
        ("no 405", {"errors.wrong-method"}),
        ("open", {"errors.no-key", "errors.wrong-key"}),
        ("any model", {"errors.unknown-model"}),
        ("reversed scores", {"scores.relevance"}),
        ("logits", {"scores.range"}),
        ("random scores", {"scores.repeatable", "scores.order"}),
        ("scores of a batch", {"scores.other-documents"}),
        ("no usage", {"wire.answer"}),
        ("counts characters", {"metering.tokens"}),
        ("counts results", {"metering.top"}),
        ("counts the query once", {"metering.sum"}),
        *((f"ignores {name}", {f"metering.option-{name}"}) for name in OPTIONS),
        ("charges refusals", {"metering.refused"}),
        ("usage in HTML", {"metering.refused", "metering.charge"}),
        ("no cors", {"browsers.preflight", "browsers.answers", "browsers.errors"}),
        ("no limit", {"retries.limit"}),
        ("no retry-after", {"retries.retry-after"}),
    ],
)
def test_a_fault_fails_its_checks(fault: str, checks: set[str]) -> None:
    assert checks <= failed(fault)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_each_check_is_about_a_server_that_does_not_answer(family: Family) -> None:
    def hang_up(_request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("the connection was closed")

    report = run(family, TARGET, transport=httpx.MockTransport(hang_up))

    assert report.passed == 0
    assert "ReadError: the connection was closed" in {each.actual for each in report.results}


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    busy = [httpx.Response(503, headers={"retry-after": "3"}), httpx.Response(429)]

    def answer(_request: httpx.Request) -> httpx.Response:
        return busy.pop(0) if busy else httpx.Response(200, json={})

    with httpx.Client(transport=httpx.MockTransport(answer)) as http:
        seen = Server(FAMILIES["jina"], TARGET, http)
        assert seen.send("GET", "/v1/models").status_code == 200

    assert waits == [3, 1]
    assert [each.status_code for each in seen.busy_answers] == [503, 429]


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("http://h", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/v1/", "/v1/rerank", "http://h/v1/rerank"),
        ("http://h/voyage", "/v1/rerank", "http://h/voyage/v1/rerank"),
        ("http://h/v1", "/rerank", "http://h/v1/rerank"),
        ("http://h/v2", "/v2/rerank", "http://h/v2/rerank"),
    ],
)
def test_a_base_url_may_end_with_the_version_of_the_path(
    base_url: str, path: str, url: str
) -> None:
    with httpx.Client() as http:
        assert Server(FAMILIES["jina"], Target(base_url=base_url), http).url(path) == url


def test_names_of_checks_are_distinct() -> None:
    names = [check.name for check in CHECKS]

    assert len(names) == len(set(names))


def test_a_report_names_what_was_expected_and_what_came() -> None:
    def unmet(_server: Server) -> None:
        raise Unmet("status 200", "500 broken")

    with httpx.Client() as http:
        checked = Server(FAMILIES["jina"], TARGET, http)
        result = result_of(Check("wire.x", "It works.", unmet), checked)

    assert Report("jina", "2026-01-02", [result]).as_json()["results"] == [
        {
            "name": "wire.x",
            "meaning": "It works.",
            "outcome": "failed",
            "expected": "status 200",
            "actual": "500 broken",
        }
    ]
