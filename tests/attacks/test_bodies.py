"""Expensive bodies do not affect other clients, and use up their tenant's own budget."""

import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from testkit.service import Service
from tests.attacks.conftest import (
    everything_answers,
    gateway_memory_bytes,
    rerank_body,
)

pytestmark = pytest.mark.ray

SIZE = 9_900_000
SENDERS = 6
ATTACK_S = 4.0
MEMORY_GROWTH_MAX = 150_000_000
"""Memory of six bodies that are read concurrently, and leftovers of the JSON reader."""

COSTLY = {
    "numbers": b"1," * (SIZE // 2) + b"1",
    "lists": b"[]," * (SIZE // 3) + b"1",
    "strings": b'"",' * (SIZE // 3) + b"1",
    "objects": b'{"a":1},' * (SIZE // 8) + b"1",
    "escapes": b'"' + b"\\n" * (SIZE // 2) + b'"',
}
FIELDS = ("ignored", "rank_fields", "documents")


def costly_body(kind: str, field: str) -> bytes:
    fields = b'{"query":"q",' + (b'"documents":["d"],' if field != "documents" else b"")
    return fields + f'"{field}":['.encode() + COSTLY[kind] + b"]}"


@contextmanager
def sending(service: Service, key: str, body: bytes) -> Iterator[Counter[int]]:
    """Send the body repeatedly from several clients of one key while the block runs."""
    ends_at = time.monotonic() + ATTACK_S
    statuses: Counter[int] = Counter()

    def send() -> None:
        with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
            while time.monotonic() < ends_at:
                try:
                    answer = client.post(f"{service.address}/v1/rerank", content=body)
                    statuses[answer.status_code] += 1
                except httpx.TransportError:  # Refused while the client was still sending.
                    statuses[0] += 1

    with ThreadPoolExecutor(SENDERS) as threads:
        for _ in range(SENDERS):
            threads.submit(send)
        yield statuses


@pytest.mark.parametrize(
    ("kind", "field"), [(kind, FIELDS[index % 3]) for index, kind in enumerate(COSTLY)]
)
def test_expensive_bodies_without_credit_do_not_block_other_tenants(
    service: Service, broke_key: str, kind: str, field: str
) -> None:
    (gateway,) = service.replicas("rerank")
    memory_before, charges_before = gateway_memory_bytes(service), service.charges()
    answered = 0

    with sending(service, broke_key, costly_body(kind, field)) as statuses:
        ends_at = time.monotonic() + ATTACK_S
        while time.monotonic() < ends_at:
            everything_answers(service, timeout_s=5)
            answered += 1

    assert service.replicas("rerank") == [gateway], "Serve found it healthy"
    assert set(statuses) <= {0, 400, 402, 413, 429}
    assert statuses[400] + statuses[402] + statuses[413] >= 1, "the first ones were read"
    assert statuses[429] + statuses[0] > sum(statuses.values()) / 2, "most were not"
    assert gateway_memory_bytes(service) - memory_before < MEMORY_GROWTH_MAX
    assert service.charges() == charges_before + answered


def test_many_wrong_entries_do_not_block_other_tenants(service: Service, broke_key: str) -> None:
    """All bodies are completed together."""
    body = b'{"query":"q","documents":["d"],"rank_fields":[' + b"1," * 30_000 + b"1]}"
    head = (
        f"POST /v1/rerank HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        f"authorization: Bearer {broke_key}\r\n\r\n"
    )
    where = urlsplit(service.address)
    with ExitStack() as stack:
        waiting = []
        for _ in range(250):
            raw = socket.create_connection((where.hostname, where.port or 80), 10)
            waiting.append(stack.enter_context(raw))
            raw.sendall(head.encode() + body[:-1])
        time.sleep(0.5)
        for raw in waiting:
            raw.sendall(body[-1:])
        everything_answers(service, timeout_s=5)


def test_the_body_of_a_request_with_a_wrong_key_is_not_read(service: Service) -> None:
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
        except httpx.TransportError:  # Refused while the client was still sending.
            return 0
        return answer.status_code

    with ThreadPoolExecutor(20) as threads:
        waiting = [threads.submit(guess) for _ in range(20)]
        while not all(each.done() for each in waiting):
            highest = max(highest, gateway_memory_bytes(service))
            time.sleep(0.05)

    assert {each.result() for each in waiting} <= {0, 401}
    assert highest - before < SIZE * 5


def test_refused_requests_use_up_a_budget_of_their_tenant_only(
    service: Service, broke_key: str
) -> None:
    # One client, because creating hundreds would be slower than the budget is regained.
    with (
        httpx.Client(headers={"authorization": f"Bearer {broke_key}"}, timeout=30) as client,
        ThreadPoolExecutor(8) as threads,
    ):
        answers = list(
            threads.map(
                lambda _: client.post(f"{service.address}/v1/rerank", content=b"{}"), range(600)
            )
        )

    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) == {400, 429}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    with service.client() as other:
        assert other.post("/v1/rerank", json=rerank_body()).status_code == 200
