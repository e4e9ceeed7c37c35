"""Load for a running service: three kinds of clients, each at a constant rate of its own.

    locust -f loadtests/locustfile.py -H http://127.0.0.1:8000                  with its web page
    locust -f loadtests/locustfile.py -H http://127.0.0.1:8000 --headless -u 8 -t 60s

The API keys come from ``RERANK_API_KEY``, several with commas between them and each for another
user, else from ``var/dev.key``. A user that falls behind its rate sends the next request at once:
it never waits longer for a slow server, but it cannot send two at a time either, so compare the
rate achieved with the rate asked for, and add users past saturation.
What was refused or failed has a line of its own by status, so that the times and the rate beside a
kind of request are those of answers. An answer with a wrong number of results, or out of order,
counts as a failure.
"""

import os
from itertools import count, cycle
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task
from locust.env import Environment

from loadtests.traffic import Traffic

DEV_KEY_FILE = Path("var/dev.key")
SEEDS = count(1)


def api_keys() -> list[str]:
    """The keys to send, or a clear error before any load."""
    if keys := os.environ.get("RERANK_API_KEY"):  # noqa: TID251 - this is a program of its own
        return keys.split(",")
    if DEV_KEY_FILE.exists():
        return [DEV_KEY_FILE.read_text().strip()]
    raise SystemExit(f"No API key: set RERANK_API_KEY, or run where {DEV_KEY_FILE} is.")


API_KEYS = cycle(api_keys())


class RerankUser(FastHttpUser):
    """One client with one request in flight; the classes below say how large and how often."""

    abstract = True
    documents: int

    def on_start(self) -> None:
        self.traffic = Traffic(next(SEEDS))
        self.headers = {"Authorization": f"Bearer {next(API_KEYS)}"}

    @classmethod
    def line(cls) -> str:
        """The name of its answers' line in the report."""
        return f"rerank {cls.documents} documents"

    @task
    def rerank(self) -> None:
        """Send one request and check the answer."""
        request = self.traffic.request(self.documents)
        with self.client.post(
            "/v1/rerank",
            json={"model": "embedded", "query": request.query, "documents": request.documents},
            headers=self.headers,
            name=self.line(),
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                response.request_meta["name"] += f", {response.status_code}"
                response.failure(f"{response.status_code} {response.text}"[:200])
                return
            scores = [result["relevance_score"] for result in response.json()["results"]]
            if len(scores) != self.documents:
                response.failure(f"{len(scores)} results for {self.documents} documents")
            elif scores != sorted(scores, reverse=True):
                response.failure("results are not best first")


class SearchBox(RerankUser):
    """A person who types: few documents, wants them now."""

    documents = 5
    weight = 4
    wait_time = constant_throughput(2)


class Retrieval(RerankUser):
    """A retrieval pipeline's usual call."""

    documents = 50
    weight = 3
    wait_time = constant_throughput(0.5)


class Batch(RerankUser):
    """A job over many candidates."""

    documents = 500
    weight = 1
    wait_time = constant_throughput(0.05)


@events.quitting.add_listener
def tell_documents(environment: Environment, **_: Any) -> None:
    """What capacity is counted in."""
    stats = environment.stats
    seconds = (stats.total.last_request_timestamp or 0) - stats.total.start_time
    answered = 0
    for user in (SearchBox, Retrieval, Batch):
        line = stats.get(user.line(), "POST")
        answered += user.documents * (line.num_requests - line.num_failures)
    if seconds > 0:
        told = f"Answered: {answered:,} documents, {answered / seconds:,.1f} a second."
        print(told)  # noqa: T201 - beside the report that Locust prints
