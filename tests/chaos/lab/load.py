"""Steady load on the lab: every HAProxy gets requests at fixed times, answered or not.

Like a load balancer, it checks the HAProxies and leaves out those that do not answer. Each request
has an `Idempotency-Key`, and its client repeats it as docs/api/errors.md recommends.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import httpx

from serve_app.domain.clock import SystemClock
from serve_app.domain.units import Moment
from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER
from testkit.office import Key
from tests.chaos.traffic import NO_ANSWER, SPECIAL_TOKENS, Exchange, Said, outcome_of

CLOCK = SystemClock()
COUNTS = 20
"""Requests have from 1 to this number of documents."""

PATIENCE_S = 40.0
"""Client timeout of one attempt; a request ends within 30 s in a gateway."""

GAVE_UP = f"gave up after {PATIENCE_S:g} s"

REPEAT_FOR_S = 90.0
"""Time from the first attempt after which a client gives up. A reservation expires after 60 s."""

REPEAT_AFTER_S = 0.5
CHECK_EVERY_S = 1.0
CHECK_TIMEOUT_S = 2.0
HEALTH_PATH = "/-/healthz"
AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Sent:
    """One request, with all its attempts."""

    host: str
    """The host whose HAProxy it was sent to."""

    exchange: Exchange
    """What its client saw in the end."""

    first_outcome: str
    first_s: float
    """Duration of the first attempt."""

    total_s: float


@dataclass(frozen=True, slots=True)
class Target:
    """One HAProxy, and the key of the requests to it."""

    host: str
    url: str
    key: Key


class Load(threading.Thread):
    """Sends requests until `stop`."""

    def __init__(self, targets: Sequence[Target], requests_per_s: float) -> None:
        super().__init__(name="load", daemon=True)
        self.sent: list[Sent] = []
        self._targets = targets
        self._interval_s = 1 / requests_per_s
        self._clients = {
            target.url: httpx.Client(
                base_url=target.url,
                timeout=PATIENCE_S,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=16),
            )
            for target in targets
        }
        self._stopping = threading.Event()
        self._left_out: set[str] = set()
        """URLs of the HAProxies that did not answer their last check."""

    def run(self) -> None:
        checks = threading.Thread(target=self._check, name="checks", daemon=True)
        checks.start()
        with ThreadPoolExecutor(AT_ONCE) as threads:
            due_s = time.monotonic()
            for number in count():
                for target in self._targets:
                    due_s += self._interval_s
                    if self._stopping.wait(max(0.0, due_s - time.monotonic())):
                        return
                    if target.url not in self._left_out:
                        threads.submit(self._request, target, number)

    def answers(self, host: str) -> bool:
        """Return whether the host's HAProxy passes a check now, or gets no requests at all."""
        return all(_is_healthy(target) for target in self._targets if target.host == host)

    def stop(self) -> None:
        """Stop sending, and wait for the answers."""
        self._stopping.set()
        self.join()
        for client in self._clients.values():
            client.close()

    def _check(self) -> None:
        while not self._stopping.wait(CHECK_EVERY_S):
            for target in self._targets:
                if _is_healthy(target):
                    self._left_out.discard(target.url)
                else:
                    self._left_out.add(target.url)

    def _request(self, target: Target, number: int) -> None:
        name = f"{target.host}-{number}"
        documents = list(texts(number))
        tokens = sum(SPECIAL_TOKENS + 1 + len(each.split()) for each in documents)
        body = {"query": QUERY_MARKER, "documents": documents}
        headers = {"X-API-Key": target.key.secret, "x-request-id": name, "Idempotency-Key": name}
        sent_at, began_s = CLOCK.moment(), time.monotonic()
        attempts = list(self._attempts(target, body, headers))
        (first_outcome, _, first_s), (outcome, said, _) = attempts[0], attempts[-1]
        exchange = Exchange(
            *(name, target.key.key_id, len(documents), tokens),
            *(sent_at, Moment(CLOCK.moment()), outcome, said),
        )
        total_s = time.monotonic() - began_s
        self.sent.append(Sent(target.host, exchange, first_outcome, first_s, total_s))

    def _attempts(
        self, target: Target, body: object, headers: dict[str, str]
    ) -> Iterator[tuple[str, Said | None, float]]:
        """Yield the outcome, the answer and the duration of each attempt."""
        give_up_s = time.monotonic() + REPEAT_FOR_S
        while True:
            began_s = time.monotonic()
            response, wait_s = None, REPEAT_AFTER_S
            try:
                response = self._client(target).post("/v1/rerank", json=body, headers=headers)
                outcome, said = outcome_of(response)
                wait_s = float(response.headers.get("retry-after", REPEAT_AFTER_S))
            except httpx.TimeoutException:
                outcome, said = GAVE_UP, None
            except httpx.TransportError:
                outcome, said = NO_ANSWER, None
            yield outcome, said, time.monotonic() - began_s
            again = response is None or response.status_code in {409, 429} | set(range(500, 600))
            if said is not None or not again or time.monotonic() + wait_s > give_up_s:
                return
            time.sleep(wait_s)

    def _client(self, target: Target) -> httpx.Client:
        """Return the client of a HAProxy, or of another one if this one is left out."""
        others = sorted(self._clients.keys() - self._left_out)
        url = others[0] if target.url in self._left_out and others else target.url
        return self._clients[url]


def _is_healthy(target: Target) -> bool:
    try:
        answer = httpx.get(target.url + HEALTH_PATH, timeout=CHECK_TIMEOUT_S)
    except httpx.TransportError:
        return False
    return answer.status_code == httpx.codes.OK


def texts(number: int) -> Iterator[str]:
    """Yield the documents of a request; no two have the same numbers of documents and words."""
    documents, words = 1 + number % COUNTS, number // COUNTS
    for index in range(documents):
        more = words // documents + (index < words % documents)
        yield " ".join([DOCUMENT_MARKER, *["river"] * more])
