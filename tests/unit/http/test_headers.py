"""Request headers of clients, and response headers of the service."""

import pytest
from starlette.datastructures import Headers

from serve_app.domain.errors import InvalidRequest
from serve_app.http.headers import idempotency_key, sent_keys, timeout_s
from serve_app.http.openapi.operations import OPERATIONS
from serve_app.http.openapi.scoring import SCORING
from serve_app.http.request_ids import random_request_id
from tests.support.app import LIMITS, FakeApp


@pytest.mark.parametrize(
    ("headers", "keys"),
    [
        ({"authorization": "Bearer abc"}, ("abc",)),
        ({"authorization": "bearer  abc "}, ("abc",)),
        ({"authorization": "Bearer\tabc"}, ("abc",)),
        ({"authorization": "abc"}, ("abc",)),
        ({"x-api-key": " abc "}, ("abc",)),
        ({"authorization": "Bearer abc", "x-api-key": "other"}, ("abc", "other")),
        ({"authorization": "Basic dTpw", "x-api-key": "abc"}, ("abc",)),
        ({"authorization": "Basic dTpw"}, ()),
        ({"authorization": "Bearer"}, ()),
        ({"authorization": "Bearer ", "x-api-key": ""}, ()),
        ({"authorization": ""}, ()),
        ({}, ()),
    ],
)
def test_keys_are_found_in_all_supported_headers(
    headers: dict[str, str], keys: tuple[str, ...]
) -> None:
    assert sent_keys(Headers(headers)) == keys


@pytest.mark.parametrize(
    ("authorization", "x_api_key", "status"),
    [
        ("Bearer rk-good", "something else", 200),
        ("Bearer something else", "rk-good", 200),
        ("something-else", "rk-good", 200),
        ("Bearer something else", "something else", 401),
    ],
)
def test_one_valid_key_among_several_is_enough(
    app: FakeApp, authorization: str, x_api_key: str, status: int
) -> None:
    headers = {"authorization": authorization, "x-api-key": x_api_key}

    answer = app.send("GET", "/v1/models", key=None, headers=headers)

    assert answer.status_code == status


@pytest.mark.parametrize("key", ["k", " ~!", "k" * 255, "8e03978e-40d5-43dd-bc93-6894a57f9324"])
def test_an_idempotency_key_is_printable_ascii(key: str) -> None:
    assert idempotency_key(Headers({"idempotency-key": key})) == key
    assert idempotency_key(Headers({})) is None


@pytest.mark.parametrize("key", ["", "k" * 256, "a\tb", "Z\u00e4hlung", "a\x7f", "a\n"])
def test_a_malformed_idempotency_key_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        idempotency_key(Headers({"idempotency-key": key}))

    assert refusal.value.where == "idempotency-key"


def test_two_idempotency_keys_are_refused() -> None:
    twice = Headers(raw=[(b"idempotency-key", b"a"), (b"idempotency-key", b"a")])

    with pytest.raises(InvalidRequest, match="more than once"):
        idempotency_key(twice)


@pytest.mark.parametrize(("value", "seconds"), [("10", 10), ("0.25", 0.25), ("007", 7)])
def test_a_client_may_shorten_the_timeout(value: str, seconds: float) -> None:
    assert timeout_s(Headers({"x-request-timeout-s": value}), LIMITS) == seconds


def test_the_default_timeout_applies() -> None:
    assert timeout_s(Headers({}), LIMITS) == LIMITS.request_timeout_s


@pytest.mark.parametrize(
    "value", ["0", "-1", "10.001", "nan", "inf", "1e1", "1_0", "", " ", "1.", "²", "9" * 400]
)
def test_any_other_timeout_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        timeout_s(Headers({"x-request-timeout-s": value}), LIMITS)

    assert refused.value.where == "x-request-timeout-s"


ROUTES = [
    *(("POST", path) for operation in SCORING for path in operation.paths),
    *((operation.method.upper(), operation.path) for operation in OPERATIONS),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/mini"),
    ("GET", "/info"),
    ("GET", "/infinity/models"),
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/docs/nothing"),
    ("GET", "/"),
    ("GET", "/operator"),
    ("GET", "/page/app.js"),
    ("GET", "/nowhere"),
    ("PUT", "/v1/rerank"),
    ("OPTIONS", "/v1/rerank"),
    ("HEAD", "/v1/models"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_response_has_the_request_id_of_the_client(
    app: FakeApp, method: str, path: str
) -> None:
    answer = app.send(method, path, headers={"x-request-id": "trace:7.a_B-1"})

    assert answer.headers["x-request-id"] == "trace:7.a_B-1"


@pytest.mark.parametrize("sent", [{}, {"x-request-id": "a b"}, {"x-request-id": "x" * 129}])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_response_has_a_generated_request_id_by_default(
    app: FakeApp, method: str, path: str, sent: dict[str, str]
) -> None:
    assert app.send(method, path, headers=sent).headers["x-request-id"] == "rr_1"


def test_the_ledger_never_uses_the_request_id_of_the_client(app: FakeApp) -> None:
    answer = app.send(
        "POST",
        "/v1/rerank",
        headers={"x-request-id": "mine"},
        body={"query": "q", "documents": ["a"]},
    )

    assert answer.json()["id"] == "rr_1"
    assert app.ledger.charged == {"rr_1": 8}


def test_generated_ids_are_unique() -> None:

    made = {random_request_id() for _ in range(100)}

    assert len(made) == 100
    assert all(name.startswith("rr_") for name in made)
