"""The client: sends one request and checks its answer."""

import itertools
import math
import re
import time
from typing import Any, NamedTuple

from locust.contrib.fasthttp import FastHttpSession

PATH = "/v1/rerank"
TIMING = re.compile(r"(\w+);dur=([\d.]+)")
NAN = math.nan


class Outcome(NamedTuple):
    """What became of a request."""

    status: int
    """HTTP status; 0 without an answer."""

    problem: str
    """Why the request failed, as the error code if there is one; empty for a correct answer."""

    tokens: float
    queue_s: float
    run_s: float
    micro_dollars: float
    """The last four are NaN if the server did not say."""


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
        response.request_meta["response_time"] = 1_000 * (time.perf_counter() - due)
        status = int(response.status_code)
        if status == 200:
            outcome = _checked(response, documents)
        else:
            outcome = Outcome(status, _error_code(response), NAN, NAN, NAN, NAN)
            response.request_meta["name"] += f", {status or 'no answer'}"
        if outcome.problem:
            response.failure(outcome.problem)
    return outcome


def _checked(response: Any, documents: int) -> Outcome:
    """Return the outcome of an answer with status 200."""
    times = {
        name: float(value) / 1_000
        for name, value in TIMING.findall(response.headers.get("server-timing") or "")
    }
    problem, tokens, charge = "", NAN, NAN
    try:
        answer = response.json()
        scores = [result["relevance_score"] for result in answer["results"]]
        tokens = float(answer.get("usage", {}).get("total_tokens", NAN))
        charge = float(answer.get("meta", {}).get("charge_micro_dollars", NAN))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"the answer cannot be read: {error!r}"[:200]
    else:
        if len(scores) != documents:
            problem = f"{len(scores)} results for {documents} documents"
        elif any(first < second for first, second in itertools.pairwise(scores)):
            problem = "the results are not best first"
    waited, ran = times.get("queue", NAN), times.get("run", NAN)
    return Outcome(200, problem, tokens, waited, ran, charge)


def _error_code(response: Any) -> str:
    """Return the error's code, else the text of the answer or the reason for having none."""
    if not response.status_code:
        return f"no answer: {response.error!r}"[:200]
    try:
        return str(response.json()["error"]["code"])
    except (KeyError, TypeError, ValueError):
        return f"{response.status_code} {response.text}"[:200]
