"""The routes by which a tenant manages its own account, with a real ledger."""

from contextlib import ExitStack
from typing import Any

import pytest

from serve_app.access.api_keys import SCOPE_ADMIN, SCOPE_MANAGE, SCOPE_RERANK
from serve_app.domain.model import Caller, RateLimits
from serve_app.domain.units import Credits
from serve_app.ledger.accounts import own_keys
from tests.support.app import BIG, BIG_ALIAS
from tests.support.ledger_app import LedgerApp
from tests.unit.http.test_admin import CREATED_AT, NO_LIMITS, done, refused
from tests.unit.http.test_openapi import check

ROUTES = [
    ("GET", "/v1/keys"),
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys/x"),
    ("PATCH", "/v1/keys/x"),
    ("POST", "/v1/keys/x/rotate"),
    ("POST", "/v1/keys/x/revoke"),
    ("GET", "/v1/credits"),
    ("GET", "/v1/audit-log"),
]
NOT_USED = {
    "requests_per_minute": None,
    "documents_per_minute": None,
    "concurrent_requests": None,
    "month_spent_micro_dollars": None,
}


class Manager:
    """A key of acme with the scope ``manage``, and the requests that it sends."""

    def __init__(self, app: LedgerApp) -> None:
        self.app = app
        self.key_id, self.key = app.add_key(app.tenant, SCOPE_MANAGE)

    def get(self, path: str) -> Any:
        return self.app.get(path, key=self.key)

    def post(self, path: str, body: object = None) -> Any:
        return self.app.post(path, body, key=self.key)

    def patch(self, path: str, body: object) -> Any:
        return self.app.post(path, body, key=self.key, method="PATCH")


@pytest.fixture
def manager(ledger_app: LedgerApp) -> Manager:
    return Manager(ledger_app)


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_the_routes_need_the_scope(ledger_app: LedgerApp, method: str, path: str) -> None:
    assert ledger_app.post(path, method=method, key="rk_none").status_code == 401
    for key in (ledger_app.key, ledger_app.admin):
        message = refused(ledger_app.post(path, method=method, key=key), 403)
        assert "'manage'" in message


def test_the_scope_opens_neither_scoring_nor_other_tenants(manager: Manager) -> None:
    rerank = {"query": "blue", "documents": ["sky"]}

    assert "'rerank'" in refused(manager.post("/v1/rerank", rerank), 403)
    assert "'admin'" in refused(manager.get("/admin/v1/keys"), 403)


def test_scopes_combine(ledger_app: LedgerApp) -> None:
    _, key = ledger_app.add_key(ledger_app.tenant, SCOPE_RERANK, SCOPE_MANAGE)

    assert ledger_app.get("/v1/keys", key=key).status_code == 200
    assert ledger_app.post("/v1/rerank", {"query": 1}, key=key).status_code == 400


def test_the_models_are_listed_for_the_choice_of_a_keys_models(manager: Manager) -> None:
    assert len(done(manager.get("/v1/models"))["data"]) == 2
    assert done(manager.get("/v1/models/mini"))["id"] == "mini"


def test_an_administrator_creates_keys_with_the_scope(ledger_app: LedgerApp) -> None:
    wanted = {"tenant": "acme", "scopes": ["manage", "rerank"]}
    made = done(ledger_app.post("/admin/v1/keys", wanted))

    assert made["scopes"] == ["manage", "rerank"]
    assert ledger_app.get("/v1/keys", key=made["secret"]).status_code == 200


def test_a_new_key_works_and_belongs_to_the_tenant(manager: Manager) -> None:
    made = done(
        manager.post(
            "/v1/keys",
            {
                "label": "shop",
                "scopes": ["rerank"],
                "models": ["Mini", BIG_ALIAS],
                "expires_in_days": 1,
                "limits": {"documents_per_minute_max": 50},
            },
        )
    )

    assert manager.app.get("/v1/usage", key=made["secret"]).status_code == 200
    shown = {name: value for name, value in made.items() if name != "secret"}
    assert done(manager.get(f"/v1/keys/{made['id']}")) == shown
    assert shown == {
        "object": "api_key",
        "id": made["id"],
        "tenant": manager.app.tenant,
        "tenant_name": "acme",
        "label": "shop",
        "scopes": ["rerank"],
        "models": [BIG, "mini"],
        "created_at": CREATED_AT,
        "expires_at": "1970-01-02T00:16:40.000Z",
        "revoked_at": None,
        "last_used_at": None,
        "replaces": None,
        "limits": NO_LIMITS | {"documents_per_minute_max": 50},
    }
    assert shown == done(manager.app.get(f"/admin/v1/keys/{made['id']}"))
    assert made["secret"] not in manager.get("/v1/keys").text


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"scopes": ["admin"]}, "scopes[0]"),
        ({"scopes": ["rerank", "admin"]}, "scopes[1]"),
        ({"scopes": []}, "scopes"),
        ({"tenant": "acme"}, "tenant"),
        ({"label": ""}, "label"),
        ({"label": "two\nlines"}, "request"),
        ({"expires_in_days": 0}, "expires_in_days"),
        ({"limits": {"requests_per_minute": 5}}, "limits.requests_per_minute"),
    ],
)
def test_a_key_that_a_tenant_must_not_create_is_refused(
    manager: Manager, body: object, param: str
) -> None:
    before = manager.get("/v1/keys").json()

    refused(manager.post("/v1/keys", body), 400, param)

    assert manager.get("/v1/keys").json() == before


def test_a_limit_of_a_key_is_at_most_that_of_the_tenant(manager: Manager) -> None:
    tenant = {"requests_per_minute_max": 5, "monthly_budget_micro_dollars": 100}
    manager.app.patch("/admin/v1/tenants/acme", {"limits": tenant})
    made = done(manager.post("/v1/keys", {"limits": tenant | {"concurrent_requests_max": 10}}))
    path = f"/v1/keys/{made['id']}"

    for name, limit in tenant.items():
        above = {"limits": {name: limit + 1}}
        for answer in (manager.post("/v1/keys", above), manager.patch(path, above)):
            assert f"{name} must be at most {limit}, the limit" in refused(answer, 400, "request")
    assert done(manager.get(path))["limits"] == made["limits"]
    changed = done(manager.patch(path, {"limits": {"requests_per_minute_max": None}}))
    assert changed["limits"] == made["limits"] | {"requests_per_minute_max": None}


def test_a_key_for_some_models_passes_on_no_others(ledger_app: LedgerApp) -> None:
    wanted = {"tenant": "acme", "scopes": ["manage"], "models": ["mini"]}
    key = done(ledger_app.post("/admin/v1/keys", wanted))["secret"]
    path = f"/v1/keys/{ledger_app.key_id}/rotate"

    refused(ledger_app.post("/v1/keys", {"models": ["mini", BIG]}, key=key), 403)
    refused(ledger_app.post(path, key=key), 403)
    made = done(ledger_app.post("/v1/keys", key=key))

    assert made["models"] == ["mini"]
    assert done(ledger_app.post(f"/v1/keys/{made['id']}/rotate", key=key))["models"] == ["mini"]


def test_a_key_is_renamed_and_limited(manager: Manager) -> None:
    path = f"/v1/keys/{manager.app.key_id}"
    first = done(manager.patch(path, {"label": "shop"}))
    second = done(manager.patch(path, {"limits": {"concurrent_requests_max": 2}}))

    assert (first["label"], first["limits"]) == ("shop", NO_LIMITS)
    assert (second["label"], second["limits"]["concurrent_requests_max"]) == ("shop", 2)
    assert done(manager.patch(path, {})) == second
    assert "label" in refused(manager.patch(path, {"label": " "}), 400, "request")


def test_an_administrator_renames_a_key(ledger_app: LedgerApp) -> None:
    path = f"/admin/v1/keys/{ledger_app.key_id}"

    assert done(ledger_app.patch(path, {"label": "shop"}))["label"] == "shop"
    assert done(ledger_app.get(path))["label"] == "shop"


def test_a_key_is_rotated_once(manager: Manager) -> None:
    path = f"/v1/keys/{manager.app.key_id}/rotate"
    new = done(manager.post(path, {"overlap_s": 0}))

    assert new["replaces"] == manager.app.key_id
    assert manager.app.get("/v1/usage", key=new["secret"]).status_code == 200
    assert manager.app.get("/v1/usage", key=manager.app.key).status_code == 401
    refused(manager.post(path), 409)


def test_a_key_is_revoked_and_that_is_recorded_once(manager: Manager) -> None:
    path = f"/v1/keys/{manager.app.key_id}/revoke"
    first = done(manager.post(path))
    manager.app.clock.advance(60)
    again = done(manager.post(path))

    assert first["revoked_at"] == again["revoked_at"] == CREATED_AT
    assert manager.app.get("/v1/usage", key=manager.app.key).status_code == 401
    actions = [each["action"] for each in done(manager.get("/v1/audit-log"))["data"]]
    assert actions.count("key.revoke") == 1


def test_a_key_for_all_tenants_is_not_changed_by_its_own_tenant(manager: Manager) -> None:
    path = f"/v1/keys/{manager.app.admin_id}"
    before = done(manager.get(path))

    assert before["scopes"] == [SCOPE_ADMIN]
    for answer in (
        manager.patch(path, {"label": "mine"}),
        manager.post(f"{path}/rotate"),
        manager.post(f"{path}/revoke"),
    ):
        assert "'admin'" in refused(answer, 403)
    assert done(manager.get(path)) == before


def test_the_list_has_the_tenants_keys_only_in_pages(manager: Manager) -> None:
    app = manager.app
    app.add_key(app.add_tenant("bolt", 5), SCOPE_RERANK)
    whole = done(manager.get("/v1/keys"))["data"]

    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        page = done(manager.get(f"/v1/keys?limit=1&cursor={cursor}"))
        found += page["data"]
        cursor = page["next_cursor"]

    assert found == whole
    assert {each["id"] for each in whole} == {app.key_id, app.admin_id, manager.key_id}
    refused(manager.get("/v1/keys?tenant=bolt"), 400, "tenant")


def test_any_key_sees_its_own_facts(manager: Manager) -> None:
    for key_id, key in (
        (manager.key_id, manager.key),
        (manager.app.key_id, manager.app.key),
        (manager.app.admin_id, manager.app.admin),
    ):
        shown = done(manager.app.get("/v1/key", key=key))
        assert shown.pop("used") == NOT_USED
        assert shown.pop("tenant_used") == NOT_USED
        assert shown.pop("tenant_limits") == NO_LIMITS
        assert shown == done(manager.get(f"/v1/keys/{key_id}"))
    assert manager.app.get("/v1/key", key="rk_none").status_code == 401


def test_a_key_sees_how_close_it_is_to_its_limits(ledger_app: LedgerApp) -> None:
    limits = RateLimits(10, 20, 3, Credits(500))
    of_tenant = {"limits": {"requests_per_minute_max": 100, "monthly_budget_micro_dollars": 900}}
    ledger_app.patch("/admin/v1/tenants/acme", of_tenant)
    key_id, key = ledger_app.add_key(ledger_app.tenant, SCOPE_RERANK, limits=limits)
    ledger_app.reserve("r1", key_id, documents=7, amount=56)
    ledger_app.reserve("r2", ledger_app.key_id, documents=1, amount=8)

    shown = done(ledger_app.get("/v1/key", key=key))

    assert shown["id"] == key_id
    assert shown["used"] == {
        "requests_per_minute": 1,
        "documents_per_minute": 7,
        "concurrent_requests": 1,
        "month_spent_micro_dollars": 56,
    }
    assert shown["tenant_used"] == NOT_USED | {
        "requests_per_minute": 2,
        "month_spent_micro_dollars": 64,
    }
    ledger_app.clock.advance(61)
    later = done(ledger_app.get("/v1/key", key=key))["used"]
    assert (later["requests_per_minute"], later["documents_per_minute"]) == (0, 0)


def test_the_spending_of_an_earlier_month_does_not_count(ledger_app: LedgerApp) -> None:
    ledger_app.patch("/admin/v1/tenants/acme", {"limits": {"monthly_budget_micro_dollars": 900}})
    ledger_app.reserve("r1", ledger_app.key_id, documents=1, amount=8)
    ledger_app.clock.advance(40 * 86_400)

    used = done(ledger_app.get("/v1/key", key=ledger_app.key))["tenant_used"]
    assert used["month_spent_micro_dollars"] == 0


def test_the_credit_has_its_parts(manager: Manager) -> None:
    app = manager.app
    app.settle("r1", 1_000_000, amount=80)
    app.reserve("r2", app.key_id, documents=1, amount=8)
    app.patch("/admin/v1/tenants/acme", {"limits": {"monthly_budget_micro_dollars": 900}})

    shown = done(manager.get("/v1/credits"))

    (grant,) = shown.pop("grants")["data"]
    assert (grant["amount_micro_dollars"], grant["reason"]) == (1_000, "test")
    assert shown == {
        "object": "credits",
        "tenant": app.tenant,
        "tenant_name": "acme",
        "available_micro_dollars": 912,
        "reserved_micro_dollars": 8,
        "month": "1970-01",
        "month_spent_micro_dollars": 88,
        "monthly_budget_micro_dollars": 900,
        "alerts_below_micro_dollars": [5_000_000, 1_000_000],
    }
    assert shown["available_micro_dollars"] + 8 + 80 == 1_000


def test_grants_come_in_pages(manager: Manager) -> None:
    credit = {"tenant": "acme", "amount_micro_dollars": 5, "reason": "more"}
    manager.app.post("/admin/v1/credit", credit)

    first = done(manager.get("/v1/credits?limit=1"))["grants"]
    second = done(manager.get(f"/v1/credits?limit=1&cursor={first['next_cursor']}"))["grants"]

    assert [first["has_more"], second["has_more"]] == [True, False]
    assert first["data"] + second["data"] == done(manager.get("/v1/credits"))["grants"]["data"]


def test_changes_are_recorded_under_the_key_that_made_them(manager: Manager) -> None:
    made = done(manager.post("/v1/keys", {"label": "shop"}))
    manager.patch(f"/v1/keys/{made['id']}", {"label": "store"})
    manager.post(f"/v1/keys/{made['id']}/rotate")
    manager.post(f"/v1/keys/{made['id']}/revoke")

    own = done(manager.get("/v1/audit-log"))["data"][-4:]
    assert own == done(manager.app.get("/admin/v1/audit-log?tenant=acme"))["data"][-4:]
    assert [each["action"] for each in own] == [
        "key.create",
        "key.label",
        "key.rotate",
        "key.revoke",
    ]
    assert {each["who"] for each in own} == {f"key {manager.key_id}"}
    assert own[1]["details"] == {"label": "store"}
    assert made["secret"] not in manager.get("/v1/audit-log").text


def test_the_operators_names_are_not_shown(manager: Manager) -> None:
    app = manager.app
    operators = app.add_tenant("operators", 5)
    admin_id, admin = app.add_key(operators, SCOPE_ADMIN)
    credit = {"tenant": "acme", "amount_micro_dollars": 5, "reason": "more"}
    for key in (admin, app.admin):
        app.clock.advance(1)  # Grants are listed in the order of their times.
        app.post("/admin/v1/credit", credit, key=key)

    entries = done(manager.get("/v1/audit-log"))["data"]
    grants = done(manager.get("/v1/credits"))["grants"]["data"]

    own = f"key {app.admin_id}"
    assert [each["who"] for each in entries][-2:] == ["operator", own]
    assert [each["who"] for each in grants] == ["operator", "operator", own]
    for text in (manager.get("/v1/audit-log").text, manager.get("/v1/credits").text):
        assert admin_id not in text
        assert "tester" not in text
    shown = done(app.get("/admin/v1/audit-log?tenant=acme"))["data"][-2:]
    assert [each["who"] for each in shown] == [f"key {admin_id}", own]


def test_a_tenant_makes_a_limited_number_of_changes_per_hour(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = len(done(manager.get("/v1/audit-log"))["data"])
    monkeypatch.setattr(own_keys, "CHANGES_PER_HOUR_MAX", entries + 1)
    path = f"/v1/keys/{manager.app.key_id}"

    done(manager.patch(path, {"label": "one"}))
    answer = manager.patch(path, {"label": "two"})

    assert "too many changes" in refused(answer, 429)
    assert answer.headers["retry-after"] == "60"
    assert manager.post("/v1/keys").status_code == 429
    assert manager.post(f"{path}/rotate").status_code == 429
    assert done(manager.post(f"{path}/revoke"))["label"] == "one"
    manager.app.clock.advance(3_600)
    assert done(manager.patch(path, {"label": "two"}))["label"] == "two"


def test_the_usable_keys_of_a_tenant_are_limited(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_keys, "USABLE_KEYS_MAX", 4)
    last = done(manager.post("/v1/keys"))["id"]

    assert "revoke some" in refused(manager.post("/v1/keys"), 400, "request")
    done(manager.post(f"/v1/keys/{last}/revoke"))
    done(manager.post("/v1/keys"))


def test_many_reports_do_not_prevent_a_revocation(manager: Manager) -> None:
    app = manager.app
    caller = Caller(app.tenant, manager.key_id, frozenset(), None)
    with ExitStack() as held:
        for _ in range(app.service.report_places.key_max):
            held.enter_context(app.service.report_places.take(caller))

        for path in ("/v1/keys", "/v1/key", "/v1/credits", "/v1/audit-log"):
            assert manager.get(path).status_code == 429
        done(manager.post(f"/v1/keys/{app.key_id}/revoke"))


def test_responses_match_the_openapi_schemas(manager: Manager) -> None:
    page = done(manager.get("/openapi.json"))
    key = f"/v1/keys/{manager.app.key_id}"
    answers = {
        ("get", "/v1/key"): manager.get("/v1/key"),
        ("get", "/v1/keys"): manager.get("/v1/keys"),
        ("post", "/v1/keys"): manager.post("/v1/keys", {}),
        ("get", "/v1/keys/{id}"): manager.get(key),
        ("patch", "/v1/keys/{id}"): manager.patch(key, {"label": "x"}),
        ("post", "/v1/keys/{id}/rotate"): manager.post(f"{key}/rotate"),
        ("post", "/v1/keys/{id}/revoke"): manager.post(f"{key}/revoke"),
        ("get", "/v1/credits"): manager.get("/v1/credits"),
        ("get", "/v1/audit-log"): manager.get("/v1/audit-log"),
    }

    for (method, path), answer in answers.items():
        content = page["paths"][path][method]["responses"]["200"]["content"]
        schema = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        check(page, schema, done(answer))
        assert done(answer).keys() == page["components"]["schemas"][schema]["properties"].keys()
