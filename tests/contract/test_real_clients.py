"""Real client libraries over a real socket, with only their base URL changed.

Each of them reads a different part of our answers and errors. The server is the application under
uvicorn on a loopback port. Only the ports behind it are fakes.
"""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import cohere
import httpx
import openai
import pytest
from cohere.errors import (
    BadRequestError,
    ForbiddenError,
    GatewayTimeoutError,
    InternalServerError,
    NotFoundError,
    ServiceUnavailableError,
    TooManyRequestsError,
    UnauthorizedError,
)

from serve_app.domain import errors
from serve_app.ports import JobScorer
from testkit.service import wait_for
from tests.support.app import FakeApp, WordScorer
from tests.support.fakes import FailingJobScorer, HangingJobScorer
from tests.support.http_server import listening

QUERY = "blue sky"
DOCUMENTS = ["grass is green", "the sky is blue", "a blue car"]


@contextmanager
def serving(scorer: JobScorer, granted: int = 1_000_000) -> Iterator[str]:
    """Yield the address of a running application."""
    with running(FakeApp(scorer=scorer, granted=granted)) as (_, address):
        yield address


@contextmanager
def running(app: FakeApp) -> Iterator[tuple[FakeApp, str]]:
    """Run ``app`` during the block; yield it and its address."""
    try:
        with listening(app.asgi) as address:
            yield app, address
    finally:
        app.close()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with serving(WordScorer()) as found:
        yield found


@pytest.fixture(scope="module")
def poor_address() -> Iterator[str]:
    with serving(WordScorer(), granted=0) as found:
        yield found


@contextmanager
def cohere_v2(address: str, key: str = "rk-good") -> Iterator[cohere.ClientV2]:
    with httpx.Client() as connection:
        yield cohere.ClientV2(key, base_url=address, httpx_client=connection, max_retries=0)


@contextmanager
def cohere_v1(address: str, key: str = "rk-good") -> Iterator[cohere.Client]:
    with httpx.Client() as connection:
        yield cohere.Client(key, base_url=address, httpx_client=connection, max_retries=0)


@contextmanager
def openai_client(address: str, key: str = "rk-good") -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=key, base_url=f"{address}/v1", max_retries=0) as client:
        yield client


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/", "/v2", "/v2/"])
def test_cohere_v2_reads_the_ranking_and_the_usage(address: str, base: str) -> None:
    with cohere_v2(address + base) as client:
        answer = client.rerank(model="mini", query=QUERY, documents=DOCUMENTS, top_n=2)

    assert [result.index for result in answer.results] == [1, 2]
    assert answer.results[0].relevance_score > answer.results[1].relevance_score > 0
    assert answer.id.startswith("rr_")
    assert answer.meta.billed_units.search_units == 1
    assert answer.meta.api_version.version == "2"


def test_cohere_v2_extras_are_tolerated_and_named(address: str) -> None:
    with cohere_v2(address) as client:
        answer = client.rerank(
            model="mini", query=QUERY, documents=DOCUMENTS, max_tokens_per_doc=4_096, priority=0
        )

    assert answer.meta.warnings == ["The field 'priority' is unknown and was ignored."]


def test_cohere_v1_reads_the_documents_back(address: str) -> None:
    with cohere_v1(address) as client:
        answer = client.rerank(
            query=QUERY,
            documents=[{"text": text, "id": text[:5]} for text in DOCUMENTS],
            return_documents=True,
        )

    assert [result.document.text for result in answer.results] == [
        "the sky is blue",
        "a blue car",
        "grass is green",
    ]
    assert [result.document.id for result in answer.results] == ["the s", "a blu", "grass"]


def test_cohere_v1_limits_the_windows_of_long_documents(address: str) -> None:
    with cohere_v1(address) as client:
        answer = client.rerank(
            query=QUERY,
            documents=["a blue sky", "grass " * 10 + "the blue sky"],
            max_chunks_per_doc=3,
        )

    assert [result.index for result in answer.results] == [0, 1]
    assert [result.relevance_score > 0.5 for result in answer.results] == [True, True]
    assert answer.meta.billed_units.search_units == 1


def test_cohere_v2_reads_the_span_of_the_best_window(address: str) -> None:
    with cohere_v2(address) as client:
        answer = client.rerank(
            model="mini",
            query=QUERY,
            documents=["grass " * 10 + "the blue sky"],
            request_options={"additional_body_parameters": {"overflow": "chunk"}},
        )

    (span,) = answer.results[0].relevant_spans
    assert (span.end, span.score) == (72, answer.results[0].relevance_score)


def test_openai_lists_the_models(address: str) -> None:
    with openai_client(address) as client:
        models = list(client.models.list())
        one = client.models.retrieve("acme/big")

    assert [model.id for model in models] == ["mini", "acme/big"]
    assert (one.id, one.owned_by, isinstance(one.created, int)) == (
        "acme/big",
        "rerank-serve",
        True,
    )


def test_openai_posts_to_rerank(address: str) -> None:
    with openai_client(address) as client:
        answer = client.post(
            "/rerank", body={"query": QUERY, "documents": DOCUMENTS}, cast_to=dict[str, object]
        )

    assert [result["index"] for result in answer["results"]] == [1, 2, 0]


def test_openai_posts_to_score(address: str) -> None:
    pairs = [["blue sky", "grass is green"], ["a red car", "a blue car"]]
    with openai_client(address) as client:
        answer = client.post("/score", body={"pairs": pairs}, cast_to=dict[str, Any])

    assert [(each["index"], each["object"]) for each in answer["data"]] == [
        (0, "score"),
        (1, "score"),
    ]
    assert answer["data"][1]["score"] > answer["data"][0]["score"] > 0
    assert answer["usage"]["documents"] == 2


def test_openai_reads_which_pair_is_invalid(address: str) -> None:
    with openai_client(address) as client, pytest.raises(openai.BadRequestError) as refusal:
        client.post("/score", body={"pairs": [["q", "a"], ["q"]]}, cast_to=object)

    assert (refusal.value.param, refusal.value.code) == ("pairs[1]", "invalid_request")


FAILURES: list[tuple[Exception, type[Exception], type[Exception]]] = [
    (errors.InvalidRequest("query", "is bad"), BadRequestError, openai.BadRequestError),
    (errors.Forbidden("it"), ForbiddenError, openai.PermissionDeniedError),
    (errors.NotFound("model 'x'", "model"), NotFoundError, openai.NotFoundError),
    (errors.Overloaded(7), TooManyRequestsError, openai.RateLimitError),
    (errors.EngineFailure("NaN"), InternalServerError, openai.InternalServerError),
    (errors.NoReplica("none"), ServiceUnavailableError, openai.InternalServerError),
    (errors.DeadlineExceeded(5.0), GatewayTimeoutError, openai.InternalServerError),
]


@pytest.mark.parametrize(
    ("failure", "cohere_class", "openai_class"),
    FAILURES,
    ids=[type(failure).__name__ for failure, _, _ in FAILURES],
)
def test_each_library_raises_its_own_class(
    failure: errors.RerankError, cohere_class: type[Any], openai_class: type[Any]
) -> None:
    with serving(FailingJobScorer(failure)) as address:
        with cohere_v2(address) as client, pytest.raises(cohere_class) as of_cohere:
            client.rerank(model="mini", query=QUERY, documents=DOCUMENTS)
        with openai_client(address) as other, pytest.raises(openai_class) as of_openai:
            other.post("/rerank", body={"query": "q", "documents": ["a"]}, cast_to=object)

    assert of_cohere.value.body["message"] == failure.public_message
    assert of_openai.value.code == failure.code
    assert of_openai.value.param == failure.where
    assert of_openai.value.request_id.startswith("rr_")


def test_cohere_v1_lists_the_models(address: str) -> None:
    with cohere_v1(address) as client:
        listed = client.models.list(page_size=5).models
        default = client.models.list(endpoint="rerank", default_only=True).models
        for_chats = client.models.list(endpoint="chat").models
        big = client.models.get("acme/big")

    assert [(model.name, model.endpoints) for model in listed] == [
        ("mini", ["rerank"]),
        ("acme/big", ["rerank"]),
    ]
    assert ([model.name for model in default], for_chats) == (["mini"], [])
    assert (big.name, big.context_length) == ("acme/big", 8_192)


def _by_cohere_v2(address: str) -> None:
    with cohere_v2(address, "rk-guess") as client:
        client.rerank(model="mini", query=QUERY, documents=DOCUMENTS)


def _by_cohere_v1(address: str) -> None:
    with cohere_v1(address, "rk-guess") as client:
        client.rerank(model="mini", query=QUERY, documents=DOCUMENTS)


def _by_openai(address: str) -> None:
    with openai_client(address, "rk-guess") as client:
        client.models.list()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (_by_cohere_v2, UnauthorizedError),
        (_by_cohere_v1, UnauthorizedError),
        (_by_openai, openai.AuthenticationError),
    ],
)
def test_a_bad_key_is_recognised(
    address: str, call: Callable[[str], None], expected: type[Exception]
) -> None:
    with pytest.raises(expected):
        call(address)


def test_a_lack_of_credit_is_recognised(poor_address: str) -> None:
    """Cohere's library has no class for 402. Its general error has the status."""
    with cohere_v2(poor_address) as client, pytest.raises(cohere.core.ApiError) as of_cohere:
        client.rerank(model="mini", query=QUERY, documents=DOCUMENTS)
    with openai_client(poor_address) as other, pytest.raises(openai.APIStatusError) as of_openai:
        other.post("/rerank", body={"query": "q", "documents": ["a"]}, cast_to=object)

    assert of_cohere.value.status_code == 402
    assert (of_openai.value.status_code, of_openai.value.code) == (402, "out_of_credit")


@pytest.mark.slow
@pytest.mark.parametrize("library", ["cohere", "openai"])
def test_an_overload_is_retried_after_retry_after(library: str) -> None:
    class BusyOnce(WordScorer):
        calls = 0

        async def score(self, caller, job, tokenized, report):  # type: ignore[no-untyped-def]  # as in `JobScorer`
            type(self).calls += 1
            if type(self).calls == 1:
                raise errors.Overloaded(1)
            return await super().score(caller, job, tokenized, report)

    with serving(BusyOnce()) as address:
        if library == "cohere":
            with httpx.Client() as connection:
                client = cohere.ClientV2("rk-good", base_url=address, httpx_client=connection)
                client.rerank(model="mini", query=QUERY, documents=DOCUMENTS)
        else:
            with openai.OpenAI(api_key="rk-good", base_url=f"{address}/v1") as other:
                other.post("/rerank", body={"query": "q", "documents": ["a"]}, cast_to=object)

    assert BusyOnce.calls == 2


def test_a_disconnect_over_a_real_socket_voids_the_reservation() -> None:
    body = json.dumps({"query": "q", "documents": ["a"]})
    request = (
        "POST /v1/rerank HTTP/1.1\r\nhost: x\r\nx-api-key: rk-good\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    )
    scorer = HangingJobScorer()
    with running(FakeApp(scorer=scorer)) as (app, address):
        where = urlsplit(address)
        with socket.create_connection((where.hostname, where.port or 80), 30) as connection:
            connection.sendall(request.encode())
            wait_for(scorer.entered.is_set, what="the scorer's call")
        wait_for(lambda: bool(app.lines), what="the log line")

        assert app.ledger.log == ["reserve", "void 1"]
        assert app.codes() == ["client_gone"]
