"""The ``/admin/v1`` routes, with a real ledger."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from serve_app.access.api_keys import SCOPE_ADMIN
from serve_app.domain.units import KeyId, Seconds
from serve_app.ledger.accounts import tenant_accounts, tenant_keys
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.reports.balances import check_balances
from serve_app.protocols.admin import GRANT_MAX, LIMIT_VALUE_MAX, OVERLAP_S_MAX
from tests.support.app import BIG, BIG_ALIAS, FakeApp
from tests.support.asgi import Exchange
from tests.support.ledger_app import FREE_CREDIT, TIMEOUT_S, LedgerApp
from tests.unit.http.test_openapi import check

NO_LIMITS = {
    "requests_per_minute_max": None,
    "documents_per_minute_max": None,
    "concurrent_requests_max": None,
    "monthly_budget_micro_dollars": None,
}
CREDIT = {"tenant": "acme", "amount_micro_dollars": 1, "reason": "x"}
CREATED_AT = "1970-01-01T00:16:40.000Z"  # The fake clock's time.


def done(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: Any, status: int, param: str | None = None) -> str:
    body = answer.json()
    assert (answer.status_code, body["error"]["param"]) == (status, param), body
    return str(body["message"])


def available(app: LedgerApp, tenant: str = "acme") -> int:
    """Return the available credit, after an integrity check of the ledger."""
    with transaction(app.database_url, TIMEOUT_S) as connection:
        assert not check_balances(connection)
    amount: int = done(app.get(f"/admin/v1/tenants/{tenant}"))["available_micro_dollars"]
    return amount


ROUTES = [
    ("GET", "/admin/v1/tenants"),
    ("POST", "/admin/v1/tenants"),
    ("GET", "/admin/v1/tenants/x"),
    ("PATCH", "/admin/v1/tenants/x"),
    ("GET", "/admin/v1/keys"),
    ("POST", "/admin/v1/keys"),
    ("GET", "/admin/v1/keys/x"),
    ("PATCH", "/admin/v1/keys/x"),
    ("POST", "/admin/v1/keys/x/rotate"),
    ("POST", "/admin/v1/keys/x/revoke"),
    ("GET", "/admin/v1/credit"),
    ("POST", "/admin/v1/credit"),
    ("POST", "/admin/v1/credit/refunds"),
    ("GET", "/admin/v1/audit-log"),
    ("GET", "/admin/v1/usage"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_only_administrators_are_accepted(ledger_app: LedgerApp, method: str, path: str) -> None:
    assert ledger_app.post(path, method=method, key="rk_none").status_code == 401
    message = refused(ledger_app.post(path, method=method, key=ledger_app.key), 403)
    assert "'admin'" in message


def test_a_new_tenant_gets_the_free_credit_and_the_requested_settings(
    ledger_app: LedgerApp,
) -> None:
    plain = done(ledger_app.post("/admin/v1/tenants", {"name": "bolt"}))
    limited = done(
        ledger_app.post(
            "/admin/v1/tenants",
            {
                "name": "core",
                "credit_micro_dollars": 0,
                "limits": {"concurrent_requests_max": 3},
                "alerts_below_micro_dollars": [10, 20],
                "weight": 7,
            },
        )
    )

    assert plain == {
        "object": "tenant",
        "id": plain["id"],
        "name": "bolt",
        "available_micro_dollars": FREE_CREDIT,
        "created_at": CREATED_AT,
        "limits": NO_LIMITS,
        "alerts_below_micro_dollars": [5_000_000, 1_000_000],
        "weight": 1,
    }
    assert limited["available_micro_dollars"] == 0
    assert limited["limits"] == NO_LIMITS | {"concurrent_requests_max": 3}
    assert limited["alerts_below_micro_dollars"] == [20, 10]
    assert limited["weight"] == 7
    (grant,) = done(ledger_app.get("/admin/v1/credit?tenant=bolt"))["data"]
    assert (grant["reason"], grant["amount_micro_dollars"]) == ("free credit", FREE_CREDIT)


def test_a_tenant_name_is_unique(ledger_app: LedgerApp) -> None:
    answer = ledger_app.post("/admin/v1/tenants", {"name": "acme"})

    assert "tenant named 'acme' already exists" in refused(answer, 409)


def test_a_name_that_looks_like_another_is_refused_with_that_name(
    ledger_app: LedgerApp,
) -> None:
    answer = ledger_app.post("/admin/v1/tenants", {"name": "acm\u0435"})  # Cyrillic

    assert "looks like that of the tenant 'acme'" in refused(answer, 409)


def test_a_name_is_stored_and_found_in_normalized_form(ledger_app: LedgerApp) -> None:
    made = done(ledger_app.post("/admin/v1/tenants", {"name": " Bolt  \uff23o\u3000"}))

    assert made["name"] == "Bolt Co"
    assert done(ledger_app.get("/admin/v1/tenants/Bolt%20%EF%BC%A3o"))["id"] == made["id"]


def test_a_name_with_an_invisible_character_is_refused(ledger_app: LedgerApp) -> None:
    answer = ledger_app.post("/admin/v1/tenants", {"name": "bo\u200blt"})

    assert "the name must have 1 to 128 characters" in refused(answer, 400, "request")


def test_limits_change_one_by_one_and_null_removes_one(ledger_app: LedgerApp) -> None:
    path = "/admin/v1/tenants/acme"
    ledger_app.patch(path, {"limits": {"requests_per_minute_max": 5}})
    ledger_app.patch(path, {"limits": {"monthly_budget_micro_dollars": 9}})

    first = done(ledger_app.get(path))["limits"]
    second = done(ledger_app.patch(path, {"limits": {"requests_per_minute_max": None}}))

    assert first == NO_LIMITS | {"requests_per_minute_max": 5, "monthly_budget_micro_dollars": 9}
    assert second["limits"] == NO_LIMITS | {"monthly_budget_micro_dollars": 9}


def test_alerts_are_replaced(ledger_app: LedgerApp) -> None:
    path = "/admin/v1/tenants/acme"
    for below in ([3, 4], []):
        changed = done(ledger_app.patch(path, {"alerts_below_micro_dollars": below}))
        assert changed["alerts_below_micro_dollars"] == sorted(below, reverse=True)


def test_a_weight_is_replaced(ledger_app: LedgerApp) -> None:
    changed = done(ledger_app.patch("/admin/v1/tenants/acme", {"weight": 3}))

    assert changed["weight"] == 3
    assert done(ledger_app.get("/admin/v1/tenants/acme"))["weight"] == 3


def test_a_new_key_works_and_its_secret_is_shown_once(ledger_app: LedgerApp) -> None:
    made = done(
        ledger_app.post(
            "/admin/v1/keys",
            {
                "tenant": "acme",
                "label": "ci",
                "scopes": ["rerank"],
                "models": ["mini"],
                "expires_in_days": 1,
                "limits": {"documents_per_minute_max": 50},
            },
        )
    )

    assert ledger_app.get("/v1/usage", key=made["secret"]).status_code == 200
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert done(ledger_app.get(f"/admin/v1/keys/{made['id']}")) == shown
    assert shown == {
        "object": "api_key",
        "id": made["id"],
        "tenant": ledger_app.tenant,
        "tenant_name": "acme",
        "label": "ci",
        "scopes": ["rerank"],
        "models": ["mini"],
        "created_at": CREATED_AT,
        "expires_at": "1970-01-02T00:16:40.000Z",
        "revoked_at": None,
        "last_used_at": None,
        "replaces": None,
        "limits": NO_LIMITS | {"documents_per_minute_max": 50},
    }
    assert made["secret"] not in ledger_app.get("/admin/v1/keys").text


def test_a_key_for_an_alias_is_stored_with_the_models_id(ledger_app: LedgerApp) -> None:
    wanted = {"tenant": "acme", "models": [BIG_ALIAS.upper(), "Mini"]}

    assert done(ledger_app.post("/admin/v1/keys", wanted))["models"] == [BIG, "mini"]


def test_a_rotated_key_works_during_the_overlap(
    ledger_app: LedgerApp,
) -> None:
    path = f"/admin/v1/keys/{ledger_app.key_id}/rotate"
    new = done(ledger_app.post(path, {"overlap_s": 60}))

    assert new["replaces"] == ledger_app.key_id
    for after_s, status in ((59, 200), (1, 401)):
        ledger_app.clock.advance(after_s)
        assert ledger_app.get("/v1/usage", key=ledger_app.key).status_code == status
        assert ledger_app.get("/v1/usage", key=new["secret"]).status_code == 200
    assert "was already replaced by" in refused(ledger_app.post(path), 409)


def test_the_default_overlap_is_a_day(ledger_app: LedgerApp) -> None:
    done(ledger_app.post(f"/admin/v1/keys/{ledger_app.key_id}/rotate"))

    old = done(ledger_app.get(f"/admin/v1/keys/{ledger_app.key_id}"))
    assert old["expires_at"] == "1970-01-02T00:16:40.000Z"


def test_a_revoked_key_is_refused(ledger_app: LedgerApp) -> None:
    revoked = done(ledger_app.post(f"/admin/v1/keys/{ledger_app.key_id}/revoke"))

    assert revoked["revoked_at"] == CREATED_AT
    assert ledger_app.get("/v1/usage", key=ledger_app.key).status_code == 401


class SlowExchange(Exchange):
    """An exchange that calls ``happens`` before the body arrives."""

    def __init__(self, path: str, key: str, body: dict[str, object], happens: Callable[[], object]):
        chunks = [json.dumps(body).encode()]
        super().__init__(chunks, {"authorization": f"Bearer {key}"}, path)
        self._happens = happens

    async def _receive(self) -> Message:
        if self._unread:
            self._happens()
        return await super()._receive()


@pytest.mark.parametrize(
    ("path", "body", "who"),
    [
        ("/v1/rerank", {"query": "blue", "documents": ["sky"]}, "key"),
        ("/admin/v1/credit", CREDIT, "admin"),
    ],
)
def test_a_key_revoked_while_its_body_arrives_is_refused(
    ledger_app: LedgerApp, path: str, body: dict[str, object], who: str
) -> None:
    key_id = KeyId(getattr(ledger_app, f"{who}_id"))
    exchange = SlowExchange(path, getattr(ledger_app, who), body, lambda: ledger_app.revoke(key_id))

    asyncio.run(exchange.run(ledger_app.asgi))

    assert exchange.status == 401


def test_the_limits_of_a_key_change(ledger_app: LedgerApp) -> None:
    path = f"/admin/v1/keys/{ledger_app.key_id}"

    changed = done(ledger_app.patch(path, {"limits": {"monthly_budget_micro_dollars": 100}}))

    assert changed["limits"] == NO_LIMITS | {"monthly_budget_micro_dollars": 100}


def test_a_top_up_is_done_once_for_an_idempotency_key(ledger_app: LedgerApp) -> None:
    body = {"tenant": "acme", "amount_micro_dollars": 25, "reason": "invoice 17"}
    key = {"idempotency-key": "payment 9"}

    first = done(ledger_app.post("/admin/v1/credit", body, headers=key))
    again = done(ledger_app.post("/admin/v1/credit", body | {"idempotency_key": "payment 9"}))
    other = ledger_app.post("/admin/v1/credit", body | {"amount_micro_dollars": 26}, headers=key)

    assert again == first
    assert first == {
        "object": "grant",
        "id": first["id"],
        "tenant": ledger_app.tenant,
        "kind": "grant",
        "amount_micro_dollars": 25,
        "reason": "invoice 17",
        "who": f"key {ledger_app.admin_id}",
        "created_at": CREATED_AT,
        "request_id": None,
    }
    assert "another grant" in refused(other, 409)
    assert available(ledger_app) == 1_025


def test_a_correction_takes_back_at_most_the_available_credit(ledger_app: LedgerApp) -> None:
    def correct(amount: int) -> Any:
        body = {"tenant": "acme", "amount_micro_dollars": amount, "reason": "typo"}
        return ledger_app.post("/admin/v1/credit", body)

    assert done(correct(-400))["kind"] == "correction"
    assert "less than that" in refused(correct(-601), 400, "request")
    assert available(ledger_app) == 600


def test_refunds_add_up_to_at_most_the_charge(ledger_app: LedgerApp) -> None:
    ledger_app.settle("r1", 5, amount=80)

    def refund(**more: object) -> Any:
        body = {"request_id": "r1", "reason": "sorry"} | more
        return ledger_app.post("/admin/v1/credit/refunds", body)

    part = done(refund(amount_micro_dollars=30))
    rest = done(refund())

    assert (part["kind"], part["request_id"]) == ("refund", "r1")
    assert (part["amount_micro_dollars"], rest["amount_micro_dollars"]) == (30, 50)
    assert "0 micro-dollars of the charge can be refunded" in refused(refund(), 400, "request")
    assert available(ledger_app) == 1_000


def test_a_repeated_refund_is_given_once(ledger_app: LedgerApp) -> None:
    ledger_app.settle("r1", 5, amount=80)
    body = {"request_id": "r1", "reason": "sorry"}
    headers = {"idempotency-key": "ticket 4"}

    first = done(ledger_app.post("/admin/v1/credit/refunds", body, headers=headers))
    again = done(ledger_app.post("/admin/v1/credit/refunds", body, headers=headers))

    assert again == first
    assert available(ledger_app) == 1_000


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/admin/v1/tenants/nobody", None),
        ("PATCH", "/admin/v1/tenants/nobody", {"limits": {}}),
        ("GET", "/admin/v1/keys?tenant=nobody", None),
        ("POST", "/admin/v1/keys", {"tenant": "nobody"}),
        ("GET", "/admin/v1/keys/nothing", None),
        ("PATCH", "/admin/v1/keys/nothing", {"limits": {}}),
        ("POST", "/admin/v1/keys/nothing/rotate", None),
        ("POST", "/admin/v1/keys/nothing/revoke", None),
        ("GET", "/admin/v1/credit?tenant=nobody", None),
        (
            "POST",
            "/admin/v1/credit",
            {"tenant": "nobody", "amount_micro_dollars": 1, "reason": "x"},
        ),
        ("POST", "/admin/v1/credit/refunds", {"request_id": "nothing", "reason": "x"}),
        ("GET", "/admin/v1/audit-log?tenant=nobody", None),
    ],
)
def test_unknown_objects_are_not_found(
    ledger_app: LedgerApp, method: str, path: str, body: object
) -> None:
    message = refused(ledger_app.post(path, body, method=method), 404)

    assert "There is no" in message
    assert "nobody" in message or "nothing" in message


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/admin/v1/tenants", {}, "name"),
        ("/admin/v1/tenants", {"name": ""}, "name"),
        ("/admin/v1/tenants", {"name": "x" * 129}, "name"),
        ("/admin/v1/tenants", {"name": "two\nlines"}, "request"),
        ("/admin/v1/tenants", {"name": "nul\0"}, "name"),
        ("/admin/v1/tenants", {"name": "bolt", "credit_micro_dollars": -1}, "credit_micro_dollars"),
        (
            "/admin/v1/tenants",
            {"name": "bolt", "credit_micro_dollars": 10**12 + 1},
            "credit_micro_dollars",
        ),
        (
            "/admin/v1/tenants",
            {"name": "bolt", "limits": {"requests_per_minute": 5}},
            "limits.requests_per_minute",
        ),
        (
            "/admin/v1/tenants",
            {"name": "bolt", "limits": {"concurrent_requests_max": -1}},
            "limits.concurrent_requests_max",
        ),
        (
            "/admin/v1/tenants",
            {"name": "bolt", "alerts_below_micro_dollars": [0]},
            "alerts_below_micro_dollars[0]",
        ),
        ("/admin/v1/tenants", {"name": "bolt", "weight": 0}, "weight"),
        ("/admin/v1/tenants", {"name": "bolt", "weight": 1_001}, "weight"),
        ("/admin/v1/keys", {"tenant": "acme", "scopes": ["root"]}, "scopes[0]"),
        ("/admin/v1/keys", {"tenant": "acme", "scopes": []}, "scopes"),
        ("/admin/v1/keys", {"tenant": "acme", "expires_in_days": 0}, "expires_in_days"),
        ("/admin/v1/keys", {"tenant": "nul\0"}, "tenant"),
        ("/admin/v1/keys/x/rotate", {"overlap_s": -1}, "overlap_s"),
        ("/admin/v1/keys/x/rotate", {"overlap_s": 90 * 86_400 + 1}, "overlap_s"),
        ("/admin/v1/credit", CREDIT | {"amount_micro_dollars": 0}, "request"),
        ("/admin/v1/credit", CREDIT | {"amount_micro_dollars": 1.5}, "amount_micro_dollars"),
        ("/admin/v1/credit", CREDIT | {"amount_micro_dollars": "1"}, "amount_micro_dollars"),
        ("/admin/v1/credit", CREDIT | {"amount_micro_dollars": 10**30}, "amount_micro_dollars"),
        ("/admin/v1/credit", CREDIT | {"amount_micro_dollars": -(10**13)}, "amount_micro_dollars"),
        ("/admin/v1/credit", CREDIT | {"reason": None}, "reason"),
        ("/admin/v1/credit/refunds", {"request_id": "r", "reason": ""}, "reason"),
        ("/admin/v1/credit", b"[]", "body"),
        ("/admin/v1/credit", b"{", "body"),
    ],
)
def test_a_bad_body_is_refused_by_field(
    ledger_app: LedgerApp, path: str, body: object, param: str
) -> None:
    refused(ledger_app.post(path, body), 400, param)

    assert available(ledger_app) == 1_000


@pytest.mark.parametrize("key", ["", "x" * 129, "other"])
def test_an_invalid_idempotency_header_is_refused(ledger_app: LedgerApp, key: str) -> None:
    body = CREDIT | {"idempotency_key": "payment 9"} if key == "other" else CREDIT

    answer = ledger_app.post("/admin/v1/credit", body, headers={"idempotency-key": key})

    refused(answer, 400, "idempotency_key" if key == "other" else "Idempotency-Key")


def test_the_bounds_of_the_api_equal_those_of_the_ledger() -> None:
    assert LIMIT_VALUE_MAX == tenant_accounts.AMOUNT_MAX
    assert Seconds(OVERLAP_S_MAX) == tenant_keys.ROTATION_OVERLAP_S_MAX
    assert GRANT_MAX <= tenant_accounts.AMOUNT_MAX


def test_a_large_body_is_refused_without_reading_it(ledger_app: LedgerApp) -> None:
    assert "100,000 bytes" in refused(
        ledger_app.post("/admin/v1/tenants", b" " * 100_001), 413, "body"
    )


@pytest.mark.parametrize(
    "path", ["tenants", "keys", "credit?tenant=acme", "audit-log", "audit-log?tenant=acme"]
)
def test_a_list_comes_in_pages(ledger_app: LedgerApp, path: str) -> None:
    ledger_app.add_tenant("bolt", 5)
    ledger_app.post("/admin/v1/credit", CREDIT)
    path = f"/admin/v1/{path}{'&' if '?' in path else '?'}"
    whole = done(ledger_app.get(path))
    assert (whole["object"], whole["has_more"], whole["next_cursor"]) == ("list", False, None)
    assert len(whole["data"]) >= 2

    found: list[object] = []
    cursor: str | None = ""
    while cursor is not None:
        page = done(ledger_app.get(f"{path}limit=1&cursor={cursor}"))
        found += page["data"]
        cursor = page["next_cursor"]

    assert found == whole["data"]


@pytest.mark.parametrize(
    ("query", "param"), [("limit=0", "limit"), ("cursor=x", "cursor"), ("page=2", "page")]
)
@pytest.mark.parametrize("path", ["tenants", "keys", "audit-log"])
def test_a_bad_parameter_of_a_list_is_named(
    ledger_app: LedgerApp, path: str, query: str, param: str
) -> None:
    refused(ledger_app.get(f"/admin/v1/{path}?{query}"), 400, param)


def test_a_cursor_is_valid_for_its_own_list_only(ledger_app: LedgerApp) -> None:
    cursor = done(ledger_app.get("/admin/v1/keys?limit=1"))["next_cursor"]

    refused(ledger_app.get(f"/admin/v1/tenants?cursor={cursor}"), 400, "cursor")


def test_the_credit_list_requires_a_tenant(ledger_app: LedgerApp) -> None:
    refused(ledger_app.get("/admin/v1/credit"), 400, "tenant")


def test_every_change_is_in_the_audit_log_under_its_key(ledger_app: LedgerApp) -> None:
    before = len(done(ledger_app.get("/admin/v1/audit-log"))["data"])

    made = done(ledger_app.post("/admin/v1/keys", {"tenant": "acme", "label": "ci"}))
    ledger_app.post("/admin/v1/credit", CREDIT | {"tenant": "nobody"})
    ledger_app.post("/admin/v1/credit", CREDIT)

    created, granted = done(ledger_app.get("/admin/v1/audit-log?tenant=acme"))["data"][before:]
    assert created == {
        "object": "audit_entry",
        "id": created["id"],
        "at": CREATED_AT,
        "who": f"key {ledger_app.admin_id}",
        "action": "key.create",
        "tenant": ledger_app.tenant,
        "subject": made["id"],
        "details": {
            "label": "ci",
            "scopes": ["rerank"],
            "models": None,
            "expires_at": None,
            "requests_per_minute_max": None,
            "documents_per_minute_max": None,
            "concurrent_requests_max": None,
            "monthly_budget_micro_dollars": None,
        },
    }
    assert granted["action"] == "credit.grant"
    assert made["secret"] not in ledger_app.get("/admin/v1/audit-log").text


def test_a_route_lists_its_methods(ledger_app: LedgerApp) -> None:
    answer = ledger_app.post("/admin/v1/tenants", method="DELETE")

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_responses_match_the_openapi_schemas(ledger_app: LedgerApp) -> None:
    ledger_app.settle("r1", 5)
    page = done(ledger_app.get("/openapi.json"))
    answers = {
        ("get", "/v1/usage"): done(ledger_app.get("/v1/usage")),
        ("get", "/admin/v1/usage"): done(ledger_app.get("/admin/v1/usage?group_by=tenant")),
        ("get", "/admin/v1/tenants"): done(ledger_app.get("/admin/v1/tenants")),
        ("get", "/admin/v1/tenants/{id}"): done(ledger_app.get("/admin/v1/tenants/acme")),
        ("get", "/admin/v1/keys"): done(ledger_app.get("/admin/v1/keys")),
        ("post", "/admin/v1/keys"): done(ledger_app.post("/admin/v1/keys", {"tenant": "acme"})),
        ("get", "/admin/v1/credit"): done(ledger_app.get("/admin/v1/credit?tenant=acme")),
        ("post", "/admin/v1/credit"): done(ledger_app.post("/admin/v1/credit", CREDIT)),
        ("get", "/admin/v1/audit-log"): done(ledger_app.get("/admin/v1/audit-log")),
    }

    for (method, path), answer in answers.items():
        content = page["paths"][path][method]["responses"]["200"]["content"]
        schema = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        check(page, schema, answer)
        assert answer.keys() == page["components"]["schemas"][schema]["properties"].keys()


def test_an_unavailable_ledger_is_answered_503(app: FakeApp) -> None:
    for path in ("/admin/v1/tenants", "/admin/v1/usage", "/v1/usage"):
        answer = app.send("GET", path, key="rk-admin")

        assert refused(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1


def test_an_admin_key_of_any_tenant_administers_all_tenants(ledger_app: LedgerApp) -> None:
    _, key = ledger_app.add_key(ledger_app.add_tenant("bolt", 1), SCOPE_ADMIN)

    assert ledger_app.get("/admin/v1/tenants/acme", key=key).status_code == 200
