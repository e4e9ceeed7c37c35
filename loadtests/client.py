"""The client: sends one request and checks its answer."""

import math
import re
import time
from itertools import pairwise
from typing import Any, NamedTuple

from locust.contrib.fasthttp import FastHttpSession

PATH = "/v1/rerank"
TIMING = re.compile(r"(\w+);dur=([\d.]+)")


class Outcome(NamedTuple):
    """The result of a request."""

    latency_s: float
    """Time from when the request was due until its answer was complete."""

    status: int
    """HTTP status; 0 without an answer."""

    problem: str
    """Error code of a failed request, or else a description; empty for a correct answer."""

    tokens: float = math.nan
    queue_s: float = math.nan
    run_s: float = math.nan
    micro_dollars: float = math.nan
    """The last four fields are NaN if the server did not report them."""


def send(
    session: FastHttpSession, body: bytes, key: str, documents: int, name: str, due: float
) -> Outcome:
    """Send a request and record it in Locust's statistics, with its latency since ``due``.

    Args:
        name: The name under which Locust lists correct answers.
        due: When the request should have been sent, by `time.perf_counter`.
    """
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with session.post(PATH, data=body, headers=headers, name=name, catch_response=True) as response:
        latency_s = time.perf_counter() - due
        response.request_meta["response_time"] = 1_000 * latency_s
        status = int(response.status_code)
        if status == 200:
            outcome = _checked(response, documents, latency_s)
        else:
            outcome = Outcome(latency_s, status, _error_code(response))
            response.request_meta["name"] += f", {status or 'no answer'}"
        if outcome.problem:
            response.failure(outcome.problem)
    return outcome


def _checked(response: Any, documents: int, latency_s: float) -> Outcome:
    """Return the outcome of an answer with status 200."""
    try:
        answer = response.json()
        scores = [result["relevance_score"] for result in answer["results"]]
        tokens = answer.get("usage", {}).get("total_tokens", math.nan)
        charge = answer.get("meta", {}).get("charge_micro_dollars", math.nan)
        is_sorted = all(first >= second for first, second in pairwise(scores))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return Outcome(latency_s, 200, f"the answer cannot be read: {error!r}"[:200])
    problem = ""
    if len(scores) != documents:
        problem = f"{len(scores)} results for {documents} documents"
    elif not is_sorted:
        problem = "the results are not sorted by score"
    header = response.headers.get("server-timing") or ""
    times = {name: float(value) / 1_000 for name, value in TIMING.findall(header)}
    queue_s, run_s = times.get("queue", math.nan), times.get("run", math.nan)
    return Outcome(latency_s, 200, problem, tokens, queue_s, run_s, charge)


def _error_code(response: Any) -> str:
    """Return the error's code, else the text of the answer or the reason for having none."""
    if not response.status_code:
        return f"no answer: {response.error!r}"[:200]
    try:
        return str(response.json()["error"]["code"])
    except (KeyError, TypeError, ValueError):
        return f"{response.status_code} {response.text}"[:200]
