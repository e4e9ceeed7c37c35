"""Monthly statements over HTTP, with a real ledger."""

import csv
import io
from typing import Any

import pytest

from serve_app.access.api_keys import SCOPE_MANAGE
from tests.support.ledger_app import LedgerApp
from tests.unit.http.test_admin import done, refused
from tests.unit.http.test_openapi import check

DAY_S = 86_400


@pytest.fixture
def key(ledger_app: LedgerApp) -> str:
    """A key that manages acme, which was charged 80 in January 1970 and 8 in February."""
    ledger_app.settle("r1", 5 * DAY_S * 1_000, amount=80)
    ledger_app.settle("r2", 5 * DAY_S * 1_000, charged=False)
    ledger_app.settle("r3", 35 * DAY_S * 1_000, amount=8)
    ledger_app.clock.advance(40 * DAY_S)
    return ledger_app.add_key(ledger_app.tenant, SCOPE_MANAGE)[1]


def test_a_complete_month_adds_up(ledger_app: LedgerApp, key: str) -> None:
    found = done(ledger_app.get("/v1/statements/1970-01", key=key))

    (grant,) = found.pop("grants")
    assert (grant["amount_micro_dollars"], grant["who"]) == (1_000, "operator")
    assert found == {
        "object": "statement",
        "tenant": ledger_app.tenant,
        "tenant_name": "acme",
        "month": "1970-01",
        "so_far": False,
        "until": "1970-02-01T00:00:00.000Z",
        "opening_micro_dollars": 0,
        "granted_micro_dollars": 1_000,
        "charged_micro_dollars": 80,
        "closing_micro_dollars": 920,
        "usage": [
            {
                "day": "1970-01-06",
                "model": "mini",
                "key": None,
                "requests": 2,
                "errors": 1,
                "documents": 2,
                "documents_not_charged": 1,
                "tokens": 20,
                "charged_micro_dollars": 80,
            }
        ],
    }


def test_the_current_month_is_answered_so_far(ledger_app: LedgerApp, key: str) -> None:
    found = done(ledger_app.get("/v1/statements/1970-02", key=key))

    assert (found["so_far"], found["until"]) == (True, "1970-02-10T00:16:40.000Z")
    assert (found["opening_micro_dollars"], found["closing_micro_dollars"]) == (920, 912)


@pytest.mark.parametrize(
    ("query", "headers"), [("?format=csv", {}), ("", {"accept": "text/csv, */*"})]
)
def test_csv_has_the_same_balances(
    ledger_app: LedgerApp, key: str, query: str, headers: dict[str, str]
) -> None:
    answer = ledger_app.get(f"/v1/statements/1970-01{query}", key=key, headers=headers)

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="statement-1970-01.csv"'
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert [lines[0]["line"], lines[-1]["line"]] == ["opening balance", "closing balance"]
    assert lines[-1]["amount_micro_dollars"] == "920"


@pytest.mark.parametrize(
    ("query", "headers"), [("?format=html", {}), ("", {"accept": "text/html,application/xml"})]
)
def test_html_is_a_download(
    ledger_app: LedgerApp, key: str, query: str, headers: dict[str, str]
) -> None:
    answer = ledger_app.get(f"/v1/statements/1970-01{query}", key=key, headers=headers)

    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="statement-1970-01.html"'
    assert "<html" in answer.text
    assert "$0.000920" in answer.text


def test_an_administrator_gets_the_same_for_any_tenant(ledger_app: LedgerApp, key: str) -> None:
    for form in ("csv", "html"):
        own = ledger_app.get(f"/v1/statements/1970-01?format={form}", key=key)
        admin = ledger_app.get(f"/admin/v1/statements/1970-01?tenant=acme&format={form}")
        assert own.text == admin.text
    found = done(ledger_app.get("/admin/v1/statements/1970-01?tenant=acme"))
    assert found["grants"][0]["who"] == "tester"


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("1970-13", "month"),
        ("1970-1", "month"),
        ("0000-01", "month"),
        ("9999-12", "month"),
        ("january", "month"),
        ("1970-03", "request"),
        ("1970-01?format=pdf", "format"),
        ("1970-01?tenant=acme", "tenant"),
    ],
)
def test_a_bad_parameter_is_named(ledger_app: LedgerApp, key: str, path: str, param: str) -> None:
    refused(ledger_app.get(f"/v1/statements/{path}", key=key), 400, param)


def test_statements_need_their_scopes(ledger_app: LedgerApp, key: str) -> None:
    assert "'manage'" in refused(ledger_app.get("/v1/statements/1970-01"), 403)
    admin: Any = ledger_app.get("/admin/v1/statements/1970-01?tenant=acme", key=key)
    assert "'admin'" in refused(admin, 403)
    refused(ledger_app.get("/admin/v1/statements/1970-01"), 400, "tenant")
    refused(ledger_app.get("/admin/v1/statements/1970-01?tenant=none"), 404)


def test_a_statement_matches_its_schema(ledger_app: LedgerApp, key: str) -> None:
    page = done(ledger_app.get("/openapi.json"))
    found = done(ledger_app.get("/v1/statements/1970-02", key=key))

    check(page, "StatementObject", found)
    assert found.keys() == page["components"]["schemas"]["StatementObject"]["properties"].keys()
    forms = page["paths"]["/v1/statements/{month}"]["get"]["responses"]["200"]["content"]
    assert set(forms) == {"application/json", "text/csv", "text/html"}
