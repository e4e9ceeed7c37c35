"""Load for a running service: three kinds of clients, each with its own constant rate.

    locust -f loadtests/locustfile.py -H http://127.0.0.1:8000                  with its web page
    locust -f loadtests/locustfile.py -H http://127.0.0.1:8000 --headless -u 8 -t 60s

``RERANK_API_KEY`` holds the API keys, separated by commas; users take them in turn. Without it, the
key is read from ``var/dev.key``. A user that falls behind its rate sends the next request
immediately, but never has two requests in flight. Compare the achieved rate with the configured
one, and add users to go past saturation.
The report lists rejected and failed requests in separate lines by status, so that latency and rate
of the other lines cover answers only. An answer with a wrong number of results, or in the wrong
order, counts as a failure.
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
    """Return the API keys, or exit with an error before any load."""
    if keys := os.environ.get("RERANK_API_KEY"):  # noqa: TID251 - a separate program
        return keys.split(",")
    if DEV_KEY_FILE.exists():
        return [DEV_KEY_FILE.read_text().strip()]
    raise SystemExit(f"No API key: set RERANK_API_KEY, or run in the folder with {DEV_KEY_FILE}.")


API_KEYS = cycle(api_keys())


class RerankUser(FastHttpUser):
    """One client with one request in flight; subclasses define the size and rate of requests."""

    abstract = True
    documents: int

    def on_start(self) -> None:
        self.traffic = Traffic(next(SEEDS))
        self.headers = {"Authorization": f"Bearer {next(API_KEYS)}"}

    @classmethod
    def line(cls) -> str:
        """Return the name under which the report lists the answers."""
        return f"rerank {cls.documents} documents"

    @task
    def rerank(self) -> None:
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
    """A search box: few documents per request, many requests."""

    documents = 5
    weight = 4
    wait_time = constant_throughput(2)


class Retrieval(RerankUser):
    """A retrieval pipeline: a typical number of documents."""

    documents = 50
    weight = 3
    wait_time = constant_throughput(0.5)


class Batch(RerankUser):
    """A batch job: many documents per request, few requests."""

    documents = 500
    weight = 1
    wait_time = constant_throughput(0.05)


@events.quitting.add_listener
def print_documents(environment: Environment, **_: Any) -> None:
    """Print the number of scored documents, in total and per second."""
    stats = environment.stats
    seconds = (stats.total.last_request_timestamp or 0) - stats.total.start_time
    answered = 0
    for user in (SearchBox, Retrieval, Batch):
        line = stats.get(user.line(), "POST")
        answered += user.documents * (line.num_requests - line.num_failures)
    if seconds > 0:
        report = f"Answered: {answered:,} documents, {answered / seconds:,.1f} per second."
        print(report)  # noqa: T201 - follows the report that Locust prints
