"""Bodies that cost much to read stop nobody else, and cost a tenant its own budget."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from tests.attacks.conftest import (
    Keys,
    charges,
    everything_answers,
    gateway_memory_bytes,
    rerank_body,
)
from tests.integration.service import Service

pytestmark = pytest.mark.ray

SIZE = 9_900_000
SENDERS = 6
ATTACK_S = 6.0
MEMORY_GROWTH_MAX = 150_000_000
"""Six bodies that are being read at once, and what is left over from the JSON reader."""

COSTLY = {
    "numbers": b"1," * (SIZE // 2) + b"1",
    "lists": b"[]," * (SIZE // 3) + b"1",
    "strings": b'"",' * (SIZE // 3) + b"1",
    "objects": b'{"a":1},' * (SIZE // 8) + b"1",
    "escapes": b'"' + b"\\n" * (SIZE // 2) + b'"',
}


def costly_body(kind: str) -> bytes:
    return b'{"query":"q","documents":["d"],"ignored":[' + COSTLY[kind] + b"]}"


@contextmanager
def sending(service: Service, key: str, body: bytes) -> Iterator[Counter[int]]:
    """Several clients of one key send the body again and again while the block runs."""
    ends_at = time.monotonic() + ATTACK_S
    statuses: Counter[int] = Counter()

    def send() -> None:
        with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            while time.monotonic() < ends_at:
                try:
                    answer = client.post(f"{service.address}/v1/rerank", content=body)
                    statuses[answer.status_code] += 1
                except httpx.TransportError:  # Refused while it was still sending.
                    statuses[0] += 1

    with ThreadPoolExecutor(SENDERS) as threads:
        for _ in range(SENDERS):
            threads.submit(send)
        yield statuses


@pytest.mark.parametrize("kind", COSTLY)
def test_costly_bodies_of_a_tenant_without_credit_stop_nobody_else(
    service: Service, keys: Keys, kind: str
) -> None:
    (gateway,) = service.replicas("gateway")
    memory_before, charges_before = gateway_memory_bytes(service), charges(service)
    answered = 0

    with sending(service, keys.broke, costly_body(kind)) as statuses:
        ends_at = time.monotonic() + ATTACK_S
        while time.monotonic() < ends_at:
            everything_answers(service, timeout_s=5)
            answered += 1

    assert service.replicas("gateway") == [gateway], "Serve found it healthy"
    assert set(statuses) <= {0, 402, 413, 429}
    assert statuses[429] + statuses[0] > statuses[402] + statuses[413], "most were not read"
    assert gateway_memory_bytes(service) - memory_before < MEMORY_GROWTH_MAX
    assert charges(service) == charges_before + answered
    time.sleep(1)  # The tenant's budget comes back.


def test_a_refusal_that_waits_keeps_no_body_in_memory(service: Service) -> None:
    """Wrong secrets of a known key are refused late; the bodies stay with their clients."""
    wrong = service.key[:-8] + "00000000"
    headers = {"authorization": f"Bearer {wrong}"}
    before = gateway_memory_bytes(service)
    highest = before
    body = b"x" * SIZE

    def guess() -> int:
        try:
            answer = httpx.post(
                f"{service.address}/v1/rerank", content=body, headers=headers, timeout=30
            )
        except httpx.TransportError:  # Refused while it was still sending.
            return 0
        return answer.status_code

    with ThreadPoolExecutor(20) as threads:
        for _ in range(5):  # So many that the next ones wait.
            assert guess() in (0, 401)
        waiting = [threads.submit(guess) for _ in range(20)]
        while not all(each.done() for each in waiting):
            highest = max(highest, gateway_memory_bytes(service))
            time.sleep(0.05)

    assert {each.result() for each in waiting} <= {0, 401}
    assert highest - before < SIZE * 5


def test_refused_requests_use_up_a_budget_of_their_tenant_only(
    service: Service, keys: Keys
) -> None:
    def malformed(_: int) -> httpx.Response:
        return httpx.post(
            f"{service.address}/v1/rerank",
            content=b"{}",
            headers={"authorization": f"Bearer {keys.broke}"},
            timeout=10,
        )

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(malformed, range(600)))

    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {400, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    with service.client() as other:
        assert other.post("/v1/rerank", json=rerank_body()).status_code == 200
