"""``Idempotency-Key`` on the scoring routes, with a real ledger."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from serve_app.domain.errors import EngineFailure
from serve_app.domain.model_names import ModelNames
from serve_app.http.app import build_app
from serve_app.ledger.db.engines import reading
from serve_app.ledger.db.tables import charges, idempotent_requests
from serve_app.served_model import ServedModel
from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER
from tests.support.app import BIG, BIG_ALIAS, MINI, FakeApp, WordScorer
from tests.support.asgi import Exchange
from tests.support.fakes import FailingJobScorer, HangingJobScorer
from tests.support.ledger_app import TIMEOUT_S, LedgerApp

QUERY = f"{QUERY_MARKER} blue"
TEXTS = [f"{DOCUMENT_MARKER} grey", "the sky is blue", "red"]
BODY = {"query": QUERY, "documents": TEXTS, "return_documents": True}
KEY = {"idempotency-key": "a client's own key"}

FAMILIES: dict[str, dict[str, Any]] = {
    "/v1/rerank": BODY,
    "/v2/rerank": {"query": QUERY, "documents": [{"text": text} for text in TEXTS], "top_n": 2},
    "/rerank": {"query": QUERY, "texts": TEXTS, "return_text": True},
    "/v1/score": {"pairs": [[QUERY, text] for text in TEXTS]},
    "/infinity/rerank": BODY,
    "/v1/ranking": {"query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS]},
    "/voyage/v1/rerank": BODY,
}


@pytest.fixture
def app(ledger_app: LedgerApp) -> LedgerApp:
    ledger_app.ledger.start()
    serve(ledger_app)
    return ledger_app


def serve(app: LedgerApp, scorer: Any = None, names: ModelNames | None = None) -> None:
    """Let ``app`` score with the real ledger."""
    pipeline = app.service.pipeline
    served = ServedModel(replace(pipeline.models[MINI].live, scorer=scorer or WordScorer()))
    pipeline = replace(pipeline, ledger=app.ledger, models={MINI: served, BIG: served})
    service = replace(app.service, pipeline=pipeline, model_names=names or app.service.model_names)
    app._app.asgi = build_app(service)


def send(app: LedgerApp, path: str = "/v1/rerank", body: Any = BODY, **headers: str) -> Any:
    return app.post(path, body, key=app.key, headers=KEY | headers)


def count(app: LedgerApp, table: Any = charges) -> int:
    with reading(app.database_url, TIMEOUT_S) as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.parametrize("path", FAMILIES)
def test_a_repeat_gets_the_same_body_and_is_charged_once(app: LedgerApp, path: str) -> None:
    first, second, third = (send(app, path, FAMILIES[path]) for _ in range(3))

    assert first.status_code == second.status_code == third.status_code == 200
    assert first.content == second.content == third.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == third.headers["idempotent-replayed"] == "true"
    assert second.headers["server-timing"] == first.headers["server-timing"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert count(app) == 1


def test_requests_without_a_key_are_charged_each_time(app: LedgerApp) -> None:
    for _ in range(2):
        assert app.post("/v1/rerank", BODY, key=app.key).status_code == 200

    assert count(app) == 2
    assert count(app, idempotent_requests) == 0


def test_a_trailing_slash_is_the_same_route_and_an_alias_is_not(app: LedgerApp) -> None:
    send(app)

    assert send(app, "/v1/rerank/").headers["idempotent-replayed"] == "true"
    assert conflict(send(app, "/v2/rerank")) == "idempotency_key_reused"
    assert count(app) == 1


def test_a_body_differs_if_any_byte_does(app: LedgerApp) -> None:
    body = b'{"query": "a", "documents": ["b"]}'
    send(app, body=body)

    assert conflict(send(app, body=body + b" ")) == "idempotency_key_reused"
    assert send(app, body=body).headers["idempotent-replayed"] == "true"


def conflict(answer: httpx.Response) -> str:
    assert answer.status_code == 409
    return str(answer.json()["error"]["code"])


def test_a_repeat_of_a_running_request_waits(app: LedgerApp) -> None:
    scorer = HangingJobScorer()

    async def scenario() -> httpx.Response:
        serve(app, scorer)
        headers = KEY | {"authorization": f"Bearer {app.key}"}
        transport = httpx.ASGITransport(app.asgi)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            first = asyncio.create_task(client.post("/v1/rerank", json=BODY, headers=headers))
            await scorer.entered.wait()
            second = await client.post("/v1/rerank", json=BODY, headers=headers)
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        return second

    second = asyncio.run(scenario())

    assert conflict(second) == "idempotency_key_in_use"
    assert second.headers["retry-after"] == "1"
    serve(app)
    third = send(app)
    assert third.status_code == 200, "a cancelled request frees its key"
    assert "idempotent-replayed" not in third.headers
    assert count(app) == 1


def test_a_failed_request_frees_its_key(app: LedgerApp) -> None:
    serve(app, FailingJobScorer(EngineFailure("broken")))
    assert send(app).status_code == 500
    serve(app)

    assert send(app).status_code == 200
    assert count(app) == 1


def test_a_repeat_is_answered_with_the_model_of_the_first_answer(app: LedgerApp) -> None:
    """Another model may have become the default in the meantime."""
    first = send(app)
    serve(app, names=ModelNames({BIG: (BIG_ALIAS,), MINI: ()}))

    assert send(app).content == first.content
    assert first.json()["model"] == MINI


def test_the_database_has_no_text_and_no_key(app: LedgerApp) -> None:
    for path, body in FAMILIES.items():
        assert send(app, path, body, **{"idempotency-key": path}).status_code == 200
    app.ledger.close()

    database = Path(app.database_url.removeprefix("sqlite:///"))
    files = [each.read_bytes() for each in database.parent.glob(f"{database.name}*")]
    assert any(app.tenant.encode() in content for content in files)
    for secret in (QUERY_MARKER, DOCUMENT_MARKER, "the sky is blue", *FAMILIES):
        assert not any(secret.encode() in content for content in files)
    assert count(app, idempotent_requests) == len(FAMILIES)


def test_a_key_sent_twice_is_refused_before_the_body_is_read(app: LedgerApp) -> None:
    class Twice(Exchange):
        def _scope(self) -> Any:
            scope = super()._scope()
            scope["headers"].append((b"idempotency-key", b"b"))
            return scope

    exchange = Twice([b"{}"], {"authorization": f"Bearer {app.key}"} | KEY)
    asyncio.run(exchange.run(app.asgi))

    assert (exchange.status, exchange.read) == (400, 0)
    assert exchange.answer["error"]["param"] == "idempotency-key"


def test_a_repeat_is_logged_with_its_first_request_and_not_counted() -> None:
    app = FakeApp()
    for _ in range(2):
        app.send("POST", "/v1/rerank", body=BODY, headers=KEY)
    app.close()

    first, repeat = app.lines
    assert (repeat["id"], repeat["repeats"], repeat["status"]) == ("rr_2", first["id"], 200)
    assert (repeat["documents"], repeat["model"]) == (3, "mini")
    assert "charge_micro_dollars" not in repeat
    assert app.total("rerank_documents") == 3
    assert app.total("rerank_credits") == 24
    assert app.codes() == ["ok", "ok"]
