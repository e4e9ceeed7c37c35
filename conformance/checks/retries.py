"""Answers show a client when to repeat its request."""

from conformance.check import Check
from conformance.server import BUSY, NotRun, Server, Unmet, fits, shown
from conformance.texts import DOCUMENTS, QUERY

REQUESTS_MAX = 100
RETRY_AFTER_S_MAX = 60
"""Some clients ignore a longer time and repeat the request at once."""


def limit(server: Server) -> None:
    key = server.target.limited_api_key
    if key is None:
        raise NotRun("needs --limited-api-key")
    fields = server.fields(QUERY, DOCUMENTS[:1])
    for _ in range(REQUESTS_MAX):
        response = server.post(fields, headers=server.headers(key), patient=False)
        if response.status_code == 429:
            fits(response, server.family.error)
            return
        if response.status_code != 200:
            raise Unmet("status 200 or 429", shown(response))
    raise Unmet(f"status 429 within {REQUESTS_MAX} requests", "no 429")


def retry_after(server: Server) -> None:
    if not server.busy_answers:
        raise NotRun("needs an answer 429 or 503, for example by --limited-api-key")
    for response in server.busy_answers:
        wait = response.headers.get("retry-after", "")
        if not (wait.isdecimal() and 1 <= int(wait) <= RETRY_AFTER_S_MAX):
            expected = f"Retry-After from 1 to {RETRY_AFTER_S_MAX} with {response.status_code}"
            raise Unmet(expected, f"Retry-After: {wait or 'absent'}")


CHECKS = (
    Check("retries.limit", "A limit of requests is answered with 429 and an error body.", limit),
    Check(
        "retries.retry-after",
        f"Every {' and '.join(map(str, BUSY))} of the run has a Retry-After in whole seconds, at "
        f"most {RETRY_AFTER_S_MAX}.",
        retry_after,
    ),
)
