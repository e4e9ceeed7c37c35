"""CORS: web pages of the allowed origins can call the API and read its answers, also errors."""

from collections.abc import Iterator

import httpx
import pytest

from tests.support.app import LIMITS, FakeApp

PAGE = "https://app.example"
OTHER = "https://other.example"
PREFLIGHT = {"origin": PAGE, "access-control-request-method": "POST"}
EXPOSED = {
    "x-request-id",
    "retry-after",
    "server-timing",
    "x-compute-tokens",
    "idempotent-replayed",
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-documents",
    "x-ratelimit-remaining-documents",
    "x-ratelimit-reset-documents",
}


@pytest.fixture
def open_app() -> Iterator[FakeApp]:
    built = FakeApp(cors_allowed_origins=(PAGE,))
    yield built
    built.close()


@pytest.fixture
def full_app() -> Iterator[FakeApp]:
    built = FakeApp(cors_allowed_origins=(PAGE,), places=0)
    yield built
    built.close()


def preflight(app: FakeApp, **headers: str) -> httpx.Response:
    sent = PREFLIGHT | {name.replace("_", "-"): value for name, value in headers.items()}
    return app.send("OPTIONS", "/v1/rerank", key=None, headers=sent)


def listed(answer: httpx.Response, header: str) -> set[str]:
    return {name.strip().lower() for name in answer.headers[header].split(",")}


def cors_headers(answer: httpx.Response) -> list[str]:
    return [name for name in answer.headers if name.startswith("access-control-")]


def test_no_origin_is_allowed_by_default(app: FakeApp) -> None:
    refused = preflight(app)
    answer = app.send("GET", "/v1/models", headers={"origin": PAGE})

    assert refused.status_code == 405
    assert answer.status_code == 200
    assert cors_headers(refused) == cors_headers(answer) == []


def test_a_preflight_needs_no_key_and_takes_no_place(full_app: FakeApp) -> None:
    answer = preflight(
        full_app,
        access_control_request_headers="authorization,content-type,idempotency-key,x-api-key,"
        "x-request-timeout-s,x-stainless-lang",
    )

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert listed(answer, "access-control-allow-methods") == {"get", "post"}
    assert listed(answer, "access-control-allow-headers") == {
        "authorization",
        "content-type",
        "idempotency-key",
        "x-api-key",
        "x-request-timeout-s",
        "x-stainless-lang",
    }
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-request-id"] == "rr_1"
    assert full_app.lines == []


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": OTHER},
        {"origin": f"{PAGE}.evil.example"},
        {"origin": "null"},
        {"access_control_request_method": "DELETE"},
    ],
)
def test_a_preflight_for_anything_else_is_refused(
    open_app: FakeApp, headers: dict[str, str]
) -> None:
    assert preflight(open_app, **headers).status_code == 400


def test_every_answer_can_be_read_by_the_page(open_app: FakeApp, full_app: FakeApp) -> None:
    origin = {"origin": PAGE}
    body = {"query": "q", "documents": ["a"]}
    send = open_app.send
    answers = [
        send("POST", "/v1/rerank", headers=origin, body=body),
        send("GET", "/v1/models", headers=origin),
        send("POST", "/v1/rerank", headers=origin, body={}),
        send("POST", "/v1/rerank", headers=origin, key=None, body=body),
        send("POST", "/v1/rerank", headers=origin, key="rk-admin", body=body),
        send("POST", "/v1/nothing", headers=origin, body=body),
        send("DELETE", "/v1/rerank", headers=origin),
        send("POST", "/v1/rerank", headers=origin, body=b" " * (LIMITS.body_bytes_max + 1)),
        full_app.send("POST", "/v1/rerank", headers=origin, body=body),
    ]

    assert [answer.status_code for answer in answers] == [
        200,
        200,
        400,
        401,
        403,
        404,
        405,
        413,
        429,
    ]
    for answer in answers:
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert listed(answer, "access-control-expose-headers") == EXPOSED
        assert listed(answer, "vary") == {"origin"}


def test_the_answer_to_another_origin_cannot_be_read(open_app: FakeApp) -> None:
    answer = open_app.send("GET", "/v1/models", headers={"origin": OTHER})

    assert "access-control-allow-origin" not in answer.headers
    assert listed(answer, "vary") == {"origin"}, "a cache must not give it to the allowed origin"


def test_a_star_allows_every_origin() -> None:
    app = FakeApp(cors_allowed_origins=("*",))

    assert preflight(app, origin=OTHER).headers["access-control-allow-origin"] == "*"
    answer = app.send("GET", "/v1/models", key=None, headers={"origin": "null"})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, "*")
    app.close()
