"""The server under test, which is known only through HTTP."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
from pydantic import TypeAdapter, ValidationError

from conformance.family import Family, Ranked

RETRIES_MAX = 5
WAIT_S_MAX = 60
BUSY = (429, 503)
SHOWN_CHARACTERS_MAX = 200


class Unmet(Exception):
    """The server does not do what a check expects."""

    def __init__(self, expected: str, actual: str) -> None:
        super().__init__(expected, actual)
        self.expected = expected
        self.actual = actual


class NotApplicable(Exception):
    """The server's family does not define what a check is about."""


class NotRun(Exception):
    """A check needs an option that was not given. The message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the user says about the server."""

    base_url: str
    model: str | None = None
    api_key: str | None = None
    limited_api_key: str | None = None
    """A key with a limit of requests that a few requests exceed."""

    documents_max: int | None = None
    """The most documents that the server accepts in a request."""

    usage_url: str | None = None
    usage_field: str | None = None
    """The charges of the key are the sum of all fields of this name in the answer of the URL."""

    origin: str | None = None
    """A web page's origin that may call the server."""

    tolerance: float = 1e-3
    """The most by which two scores may differ and still count as equal."""


@dataclass(slots=True)
class Server:
    """Sends requests in the form of a family."""

    family: Family
    target: Target
    http: httpx.Client
    busy_answers: list[httpx.Response] = field(default_factory=list)
    """Every 429 and 503 so far."""

    def url(self, path: str) -> str:
        """Return the URL of a route. A base URL may end with the ``/v1`` that the route has."""
        base = self.target.base_url.rstrip("/")
        version = f"/{path.split('/')[1]}"
        return (base.removesuffix(version) if version in {"/v1", "/v2"} else base) + path

    def headers(self, key: str | None = None) -> dict[str, str]:
        """Return the headers for ``key``, by default the user's."""
        key = key or self.target.api_key
        return {"authorization": f"Bearer {key}"} if key else {}

    def send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        patient: bool = True,
        **content: Any,
    ) -> httpx.Response:
        """Send a request.

        Args:
            method: The HTTP method.
            path: The path after the base URL.
            headers: All headers; by default those with the user's key.
            patient: Whether to repeat the request after a 429 or 503.
            content: ``json`` or ``content`` for httpx.
        """
        headers = self.headers() if headers is None else headers
        for _ in range(RETRIES_MAX if patient else 1):
            response = self.http.request(method, self.url(path), headers=headers, **content)
            if response.status_code not in BUSY:
                break
            self.busy_answers.append(response)
            wait = response.headers.get("retry-after", "")
            if patient:
                time.sleep(min(int(wait) if wait.isdecimal() else 1, WAIT_S_MAX))
        return response

    def fields(self, query: str, documents: Sequence[Any], **options: object) -> dict[str, Any]:
        """Return the fields of a request."""
        fields = self.family.request(query, documents) | options
        if self.target.model is not None and self.family.sends_model:
            fields.setdefault("model", self.target.model)
        return fields

    def post(self, fields: object, **options: Any) -> httpx.Response:
        """Send fields to the route that scores."""
        return self.send("POST", self.family.path, json=fields, **options)

    def answered(self, query: str, documents: Sequence[Any], **options: object) -> httpx.Response:
        """Return an answer in the form of the family. Raises: Unmet."""
        response = self.post(self.fields(query, documents, **options))
        if response.status_code != 200:
            raise Unmet("status 200", shown(response))
        fits(response, self.family.answer)
        return response

    def ranked(self, query: str, documents: Sequence[Any], **options: object) -> list[Ranked]:
        """Return the results for documents, in the order of the answer. Raises: Unmet."""
        return self.results(self.answered(query, documents, **options))

    def results(self, response: httpx.Response) -> list[Ranked]:
        return self.family.ranked(self.family.answer.validate_json(response.content))

    def scores(self, query: str, documents: Sequence[Any], **options: object) -> list[float]:
        """Return the score of each document, in the order of the request. Raises: Unmet."""
        found = {each.index: each.score for each in self.ranked(query, documents, **options)}
        if sorted(found) != list(range(len(documents))):
            raise Unmet(f"one result for each of {len(documents)} documents", f"{sorted(found)}")
        return [found[index] for index in range(len(documents))]

    def equal(self, first: float, second: float) -> bool:
        """Return whether two scores are equal. Scores without bounds may differ in proportion."""
        scale = 1.0 if self.family.unit_scores else max(1.0, abs(first), abs(second))
        return abs(first - second) <= self.target.tolerance * scale

    def expect_equal(self, expected: Sequence[float], actual: Sequence[float], what: str) -> None:
        """Raises: Unmet if scores differ."""
        if not all(map(self.equal, expected, actual)):
            raise Unmet(f"{what}: {_rounded(expected)}", _rounded(actual))


def fits(response: httpx.Response, form: TypeAdapter[Any]) -> None:
    """Raises: Unmet if the body does not have the form."""
    try:
        form.validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        path = ".".join(map(str, first["loc"])) or "body"
        raise Unmet(f"{path}: {first['msg']}", shown(response)) from None


def shown(response: httpx.Response) -> str:
    """Return the status and the beginning of the body, for people."""
    body = " ".join(response.text.split())
    if len(body) > SHOWN_CHARACTERS_MAX:
        body = f"{body[:SHOWN_CHARACTERS_MAX]} ..."
    return f"{response.status_code} {body}".strip()


def _rounded(scores: Sequence[float]) -> str:
    return ", ".join(f"{score:.5f}" for score in scores)
