"""The credit and limits of one account hold across three gateways of a real service."""

import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from random import Random

import httpx
import pytest

from serve_app.domain.model import RateLimits
from serve_app.domain.units import Credits
from testkit.office import Key, Office
from testkit.service import wait_for
from tests.chaos.faults import POSTGRESQL, SQLITE
from tests.chaos.harness import World, world
from tests.chaos.traffic import PRICE
from tests.chaos.tries import WINDOW_S, Try, check_limit

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

GATEWAYS = 3
CLIENTS = 8
DOCUMENTS = 500
REQUESTS = 120


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with world(request.param, tmp_path_factory.mktemp("shared"), GATEWAYS) as running:
        wait_for_gateways(running)
        yield running


def wait_for_gateways(world: World) -> None:
    """Wait until each gateway has answered: HAProxy may know some of them later than others."""
    office = Office(world.database_url)
    key = office.key(office.tenant("early", Credits(10_000 * PRICE)))
    with (
        httpx.Client(base_url=world.service.address, timeout=60) as http,
        ThreadPoolExecutor(CLIENTS) as threads,
    ):

        def all_answered() -> bool:
            list(threads.map(lambda _: ask(http, key, 1), range(CLIENTS)))
            return gateways_that_served(world, key) == GATEWAYS

        wait_for(all_answered, 120, "an answer of each gateway")


@dataclass(slots=True)
class Asked:
    """The answers that one client got."""

    documents_served: int = 0
    answers: list[httpx.Response] = field(default_factory=list)


def ask(http: httpx.Client, key: Key, documents: int) -> httpx.Response:
    return http.post(
        "/v1/rerank",
        json={"query": "where is the river", "documents": ["a bridge"] * documents},
        headers={"Authorization": f"Bearer {key.secret}"},
    )


def run_all(clients: list[threading.Thread]) -> None:
    for client in clients:
        client.start()
    for client in clients:
        client.join()


def gateways_that_served(world: World, key: Key) -> int:
    """Return how many replicas have a log line of this key."""
    logs = (world.service.var_dir / "ray").glob("session_2*/logs/serve/replica_*gateway*.log")
    return sum(f'"key_id": "{key.key_id}"' in path.read_text(errors="replace") for path in logs)


@pytest.mark.parametrize("shared", [SQLITE, POSTGRESQL], indirect=True)
def test_credit_for_n_documents_buys_exactly_n(shared: World) -> None:
    office = Office(shared.database_url)
    key = office.key(office.tenant("exact", Credits(DOCUMENTS * PRICE)))
    clients = [Asked() for _ in range(CLIENTS)]

    def spend(asked: Asked, seed: int) -> None:
        random, most = Random(seed), 9
        with httpx.Client(base_url=shared.service.address, timeout=60) as http:
            while most > 0:
                documents = random.randint(1, most)
                answer = ask(http, key, documents)
                asked.answers.append(answer)
                if answer.status_code == 200:
                    asked.documents_served += documents
                else:
                    most = documents - 1  # Ends when even one document is too much.

    run_all(
        [threading.Thread(target=spend, args=(asked, seed)) for seed, asked in enumerate(clients)]
    )

    statuses = {answer.status_code for asked in clients for answer in asked.answers}
    assert statuses == {200, 402}
    assert sum(asked.documents_served for asked in clients) == DOCUMENTS
    assert gateways_that_served(shared, key) == GATEWAYS


def hammer(address: str, key: Key, documents_max: int, tries: list[Try]) -> None:
    """Exceed the limit until it refills; with ``documents_max`` 1, requests are limited."""
    what = "requests" if documents_max == 1 else "documents"
    random, until_s = Random(len(tries)), math.inf
    with httpx.Client(base_url=address, timeout=60) as http:
        while (before_s := time.monotonic()) < until_s:
            documents = random.randint(1, documents_max)
            answer = ask(http, key, documents)
            after_s = time.monotonic()
            # The first answer may be late on a busy machine, and the limit refills after that.
            until_s = min(until_s, after_s + WINDOW_S + 5)
            remaining = None
            if answer.status_code == 200:
                remaining = int(answer.headers[f"x-ratelimit-remaining-{what}"])
            else:
                assert answer.status_code == 429
                assert int(answer.headers["retry-after"]) >= 1
            tries.append(Try(before_s, after_s, documents, remaining))
            time.sleep(random.uniform(0, 0.3))


def obey(address: str, key: Key, answers: list[httpx.Response]) -> None:
    """Exceed a limit of one request, and send again after the Retry-After."""
    with httpx.Client(base_url=address, timeout=60) as http:
        answers += [ask(http, key, 1), ask(http, key, 1)]
        # The whole wait may be one second longer than the longest Retry-After.
        while answers[-1].status_code == 429 and len(answers) < 4:
            time.sleep(int(answers[-1].headers["retry-after"]))
            answers.append(ask(http, key, 1))


@pytest.mark.parametrize("shared", [POSTGRESQL], indirect=True)
def test_limits_per_minute_hold_across_gateways(shared: World) -> None:
    office, address = Office(shared.database_url), shared.service.address
    tenant = office.tenant("limited", Credits(1_000_000))
    of_requests = office.key(tenant, RateLimits(requests_per_minute_max=REQUESTS))
    of_documents = office.key(tenant, RateLimits(documents_per_minute_max=DOCUMENTS))
    by_requests: list[Try] = []
    by_documents: list[Try] = []
    obedient = office.key(tenant, RateLimits(requests_per_minute_max=1))
    retried: list[httpx.Response] = []

    run_all(
        [threading.Thread(target=obey, args=(address, obedient, retried))]
        + [
            threading.Thread(target=hammer, args=(address, key, most, tries))
            for key, most, tries in (
                (of_requests, 1, by_requests),
                (of_documents, 9, by_documents),
            )
            for _ in range(CLIENTS // 2)
        ]
    )

    for key, tries, limit in (
        (of_requests, by_requests, REQUESTS),
        (of_documents, by_documents, DOCUMENTS),
    ):
        check_limit(tries, limit)
        assert gateways_that_served(shared, key) == GATEWAYS
    first, second, *_, last = retried
    assert [each.status_code for each in (first, second, last)] == [200, 429, 200]
