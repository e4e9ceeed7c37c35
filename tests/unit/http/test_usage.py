"""``GET /v1/usage`` and ``GET /admin/v1/usage``: tenants, groups and pages."""

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest

from serve_app.access.api_keys import SCOPE_RERANK
from tests.support.ledger_app import LedgerApp

LATENCY_MS = 100
JAN_2, JAN_3 = 1_767_312_000_000, 1_767_398_400_000  # 2026, 00:00 UTC


@pytest.fixture
def used(ledger_app: LedgerApp) -> LedgerApp:
    """A ledger with usage. acme: two requests on 2 January, of which one was not answered, and one
    on the 3rd. bolt: one on the 3rd."""
    app = ledger_app
    app.settle("r1", JAN_2 + 5)
    app.settle("r2", JAN_2 + 6, charged=False)
    app.settle("r3", JAN_3, model="acme/big", amount=80)
    bolt = app.add_tenant("bolt", 500)
    key_id, _ = app.add_key(bolt, SCOPE_RERANK)
    app.settle("r4", JAN_3 + 1, of=(bolt, key_id))
    return app


def row(**fields: object) -> dict[str, object]:
    """Return the row of one answered request for one document, changed by ``fields``."""
    return {
        "day": None,
        "model": None,
        "key": None,
        "requests": 1,
        "errors": 0,
        "documents": 1,
        "documents_not_charged": 0,
        "tokens": 10,
        "charged_micro_dollars": 8,
        "latency_ms_p50": LATENCY_MS,
        "latency_ms_p95": LATENCY_MS,
    } | fields


FIRST_DAY = row(
    day="2026-01-02", requests=2, errors=1, documents=2, documents_not_charged=1, tokens=20
)
SECOND_DAY = row(day="2026-01-03", charged_micro_dollars=80)
TOTAL = row(
    requests=3, errors=1, documents=3, documents_not_charged=1, tokens=30, charged_micro_dollars=88
)


def test_a_key_gets_the_usage_of_its_tenant_by_day(used: LedgerApp) -> None:
    for key in (used.key, used.admin):
        answer = used.get("/v1/usage", key=key)

        assert answer.status_code == 200
        assert answer.json() == {
            "object": "list",
            "data": [FIRST_DAY, SECOND_DAY],
            "has_more": False,
            "next_cursor": None,
        }


def test_rows_are_grouped_as_requested(used: LedgerApp) -> None:
    data = used.get("/v1/usage?group_by=model,key", key=used.key).json()["data"]

    assert data == [
        row(model="acme/big", key=used.key_id, charged_micro_dollars=80),
        FIRST_DAY | {"day": None, "model": "mini", "key": used.key_id},
    ]


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("model=mini", [FIRST_DAY]),
        ("model=MINI&since=2026-01-03", []),
        ("model=nothing", []),
        ("key={key}", [FIRST_DAY, SECOND_DAY]),
        ("key={key}&model=acme/big&since=2026-01-02", [SECOND_DAY]),
        ("key=0123456789", []),
        ("group_by=none", [TOTAL]),
        ("group_by=none&model=mini", [FIRST_DAY | {"day": None}]),
        ("group_by=none&model=nothing", []),
    ],
)
def test_rows_can_be_of_one_model_and_one_key(
    used: LedgerApp, query: str, days: list[object]
) -> None:
    answer = used.get(f"/v1/usage?{query.format(key=used.key_id)}", key=used.key)

    assert answer.json()["data"] == days


def test_a_key_of_another_tenant_selects_nothing(used: LedgerApp) -> None:
    bolt = used.add_tenant("neighbour", 500)
    key_id, _ = used.add_key(bolt, SCOPE_RERANK)
    used.settle("r5", JAN_3 + 1, of=(bolt, key_id))

    assert used.get(f"/v1/usage?key={key_id}", key=used.key).json()["data"] == []
    assert len(used.get(f"/admin/v1/usage?key={key_id}").json()["data"]) == 1


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("since=2026-01-03", [SECOND_DAY]),
        ("until=2026-01-03", [FIRST_DAY]),
        ("since=2026-01-02T01:00:00%2B01:00&until=2026-01-03T00:00:00Z", [FIRST_DAY]),
        ("since=2026-01-03T00:00:00.001", []),
        ("since=&until=", [FIRST_DAY, SECOND_DAY]),
    ],
)
def test_a_time_without_an_offset_is_utc(used: LedgerApp, query: str, days: list[object]) -> None:
    assert used.get(f"/v1/usage?{query}", key=used.key).json()["data"] == days


def pages(app: LedgerApp, query: str) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        page = app.get(f"/v1/usage?{query}&limit=1&cursor={cursor}", key=app.key).json()
        yield page
        if not page["has_more"]:
            return
        cursor = page["next_cursor"]


@pytest.mark.parametrize("by", ["day", "model", "key", "day,model,key", "key,day"])
def test_all_pages_together_are_the_whole_list(used: LedgerApp, by: str) -> None:
    whole = used.get(f"/v1/usage?group_by={by}", key=used.key).json()["data"]
    found = [each for page in pages(used, f"group_by={by}") for each in page["data"]]

    assert found == whole


def test_requests_between_two_pages_do_not_shift_rows(used: LedgerApp) -> None:
    reading = pages(used, "group_by=day")
    first = next(reading)

    used.settle("late", JAN_2 + 7)
    used.settle("early", JAN_2 - 1)
    second = next(reading)

    assert (first["data"], second["data"]) == ([FIRST_DAY], [SECOND_DAY])
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("query", "headers"), [("format=csv", {}), ("", {"accept": "text/csv;q=0.9, */*"})]
)
def test_csv_has_the_same_rows(used: LedgerApp, query: str, headers: dict[str, str]) -> None:
    answer = used.get(f"/v1/usage?group_by=day,model&{query}", key=used.key, headers=headers)

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "x-next-cursor" not in answer.headers
    found = list(csv.DictReader(io.StringIO(answer.text)))
    same = used.get("/v1/usage?group_by=day,model", key=used.key).json()["data"]
    assert found == [
        {name: "" if value is None else str(value) for name, value in each.items()} for each in same
    ]


def test_incomplete_csv_names_its_next_cursor(used: LedgerApp) -> None:
    first = used.get("/v1/usage?format=csv&limit=1", key=used.key)
    cursor = first.headers["x-next-cursor"]
    second = used.get(f"/v1/usage?format=csv&limit=1&cursor={cursor}", key=used.key)

    days = [answer.text.splitlines()[1][:10] for answer in (first, second)]
    assert days == ["2026-01-02", "2026-01-03"]
    assert "x-next-cursor" not in second.headers


def test_json_can_be_requested_by_name(used: LedgerApp) -> None:
    accept = {"accept": "text/csv"}

    assert used.get("/v1/usage?format=json", key=used.key, headers=accept).json()["data"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("since=yesterday", "since"),
        ("until=2026-13-01", "until"),
        ("since=1969-12-31", "since"),
        ("since=2026-01-03&until=2026-01-03", "until"),
        ("group_by=hour", "group_by"),
        ("group_by=day,day", "group_by"),
        ("group_by=tenant", "group_by"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=ten", "limit"),
        ("format=csv&limit=10001", "limit"),
        ("format=xml", "format"),
        ("cursor=abc", "cursor"),
        ("cursor=WyJ1c2FnZSBieSBkYXkiLCJ4Il0", "cursor"),  # ["usage by day","x"]
        ("tenant=bolt", "tenant"),
        ("untill=2026-01-03", "untill"),
        ("limit=1&limit=2", "limit"),
        ("group_by=day%00", "group_by"),
    ],
)
def test_a_bad_parameter_is_named(ledger_app: LedgerApp, query: str, param: str) -> None:
    answer = ledger_app.get(f"/v1/usage?{query}", key=ledger_app.key)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert param in answer.json()["message"]


def test_a_cursor_is_valid_for_its_own_grouping_only(used: LedgerApp) -> None:
    cursor = used.get("/v1/usage?limit=1", key=used.key).json()["next_cursor"]

    answer = used.get(f"/v1/usage?group_by=model&cursor={cursor}", key=used.key)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "cursor")


def test_usage_needs_a_key(ledger_app: LedgerApp) -> None:
    assert ledger_app.get("/v1/usage", key="rk_wrong").status_code == 401
    assert ledger_app.get("/admin/v1/usage", key=ledger_app.key).status_code == 403


def test_an_administrator_sees_all_tenants_or_one(used: LedgerApp) -> None:
    by_tenant = used.get("/admin/v1/usage?group_by=tenant").json()["data"]
    bolt = used.get("/admin/v1/usage?tenant=bolt&group_by=tenant,day").json()["data"]

    assert {each["charged_micro_dollars"] for each in by_tenant} == {88, 8}
    assert used.tenant in {each["tenant"] for each in by_tenant}
    assert [(each["tenant"] != used.tenant, each["day"]) for each in bolt] == [(True, "2026-01-03")]
    assert used.get("/admin/v1/usage?tenant=nobody").status_code == 404


def test_csv_for_administrators_names_the_tenants(used: LedgerApp) -> None:
    answer = used.get("/admin/v1/usage?group_by=tenant&format=csv")

    found = list(csv.DictReader(io.StringIO(answer.text)))
    assert used.tenant in {each["tenant"] for each in found}
