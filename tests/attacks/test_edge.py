"""Clients of the proxy in ``cluster/edge`` get their own answers, as those of a node do."""

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from testkit.service import Service
from tests.attacks.conftest import rerank_body
from tests.attacks.http2 import Http2Connection
from tests.attacks.test_answers import VICTIMS, each_early_answer, request_of
from tests.support.edge import Edge, edge

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def proxy(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    node = urlsplit(service.address).netloc
    with edge(tmp_path_factory.mktemp("edge"), node, node) as started:
        yield started


def test_a_client_gets_scores_and_the_right_address(service: Service, proxy: Edge) -> None:
    headers = {"Authorization": f"Bearer {service.key}"}
    before = service.charges()
    with httpx.Client(base_url=proxy.address, verify=proxy.trust, headers=headers) as client:
        answer = client.post("/v1/rerank", json=rerank_body())
        document = client.get("/openapi.json").json()

    assert answer.status_code == 200
    assert service.charges() == before + 1
    assert document["servers"][0]["url"] == proxy.address


@each_early_answer
def test_an_early_answer_does_not_affect_other_clients(
    service: Service, proxy: Edge, case: str
) -> None:
    method, path, headers, status = request_of(case, service)
    trust = proxy.trust
    trust.set_alpn_protocols(["h2"])

    with Http2Connection(proxy.address, trust=trust) as connection:
        stream = connection.request(method, path, headers, b"x" * 10, complete=False)
        assert connection.response(stream)[0] == status
        connection.end_early(stream)
        time.sleep(0.01)
        with ThreadPoolExecutor(VICTIMS) as threads:
            assert all(threads.map(_is_answered, [proxy] * VICTIMS))


def _is_answered(proxy: Edge) -> bool:
    """Return whether a client on a new connection gets the answer to its own request."""
    mark = uuid.uuid4().hex
    answer = httpx.get(f"{proxy.address}/{mark}", verify=proxy.trust, timeout=5)
    return answer.status_code == 404 and mark in answer.text
