"""``GET /admin/v1/status`` for operators."""

from dataclasses import replace

from tests.support.app import BIG, MINI, READY, FakeApp


def test_it_has_the_load_of_every_model_and_the_recent_codes(app: FakeApp) -> None:
    app.rerank()
    app.rerank()
    app.rerank(documents=[])
    body = app.send("GET", "/admin/v1/status", key="rk-admin").json()

    assert body == {
        "object": "status",
        "gateway": "gateway-1",
        "gateways": {"RUNNING": 1},
        "ledger": True,
        "last_hour": [
            {"code": "ok", "requests": 2},
            {"code": "invalid_request", "requests": 1},
        ],
        "models": [
            {
                "id": MINI,
                "ready": True,
                "device": "cpu",
                "precision": "float32",
                "replicas": {"RUNNING": 2},
                "backlog_tokens": 300,
                "inflight_tokens": 200,
                "replica_tokens_per_s": 1_000.0,
            },
            {
                "id": BIG,
                "ready": False,
                "device": None,
                "precision": "auto",
                "replicas": None,
                "backlog_tokens": 0,
                "inflight_tokens": 0,
                "replica_tokens_per_s": None,
            },
        ],
    }


def test_it_says_whether_the_ledger_answers() -> None:
    app = FakeApp(readiness=replace(READY, ready=False, ledger=False))

    assert app.send("GET", "/admin/v1/status", key="rk-admin").json()["ledger"] is False
    app.close()


def test_it_needs_an_admin_key(app: FakeApp) -> None:
    assert app.send("GET", "/admin/v1/status").status_code == 403
    assert app.send("GET", "/admin/v1/status", key=None).status_code == 401
