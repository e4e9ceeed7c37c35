"""The statuses and bodies of errors."""

import gzip
import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import httpx

from conformance.check import Check
from conformance.server import NotApplicable, NotRun, Server, Unmet, fits, shown
from conformance.texts import DOCUMENTS, QUERY

Change = Callable[[Server, dict[str, Any]], object]
"""Returns the fields of a valid request, made invalid."""


def _without_query(server: Server, fields: dict[str, Any]) -> object:
    return {name: value for name, value in fields.items() if name != server.family.query_field}


def _without_documents(server: Server, fields: dict[str, Any]) -> object:
    return {name: value for name, value in fields.items() if name != server.family.documents_field}


def _query(value: object, server: Server, fields: dict[str, Any]) -> object:
    return fields | {server.family.query_field: value}


def _blank_query(server: Server, _fields: dict[str, Any]) -> object:
    if not server.family.blank_query_refused:
        raise NotApplicable("it does not define what a blank query is")
    return server.fields("  ", DOCUMENTS)


def _documents(value: object, server: Server, fields: dict[str, Any]) -> object:
    return fields | {server.family.documents_field: value}


def _top(value: object, server: Server, fields: dict[str, Any]) -> object:
    name = server.family.top_field
    if name is None or (value == -1 and not server.family.top_strict):
        raise NotApplicable("it does not define this")
    return fields | {name: value}


def _list(_server: Server, fields: dict[str, Any]) -> object:
    return [fields]


INVALID: Mapping[str, tuple[str, Change]] = {
    "query-missing": ("A request without a query", _without_query),
    "query-a-number": ("A query that is a number", partial(_query, 5)),
    "query-blank": ("A blank query", _blank_query),
    "documents-missing": ("A request without documents", _without_documents),
    "documents-a-number": ("A number in place of the documents", partial(_documents, 5)),
    "document-a-number": ("A document that is a number", partial(_documents, ["a", 5])),
    "document-null": ("A document that is null", partial(_documents, ["a", None])),
    "top-negative": ("A negative number of results", partial(_top, -1)),
    "top-a-text": ("A number of results that is a text", partial(_top, "two")),
    "json-a-list": ("A body that is a list", _list),
}


def _invalid(change: Change, server: Server) -> None:
    response = server.post(change(server, server.fields(QUERY, DOCUMENTS)))
    _refused_as_json(server, response, server.family.invalid)


def _no_documents(server: Server) -> None:
    response = server.post(server.fields(QUERY, []))
    _refused(server, response, server.family.invalid)


def _broken_json(server: Server) -> None:
    text = json.dumps(server.fields(QUERY, DOCUMENTS))[:-1].encode()
    _refused_as_json(server, _post_bytes(server, text), server.family.invalid)


def _empty_body(server: Server) -> None:
    _refused_as_json(server, _post_bytes(server, b""), server.family.invalid)


def _no_key(server: Server) -> None:
    _require_key(server)
    response = server.post(server.fields(QUERY, DOCUMENTS), headers={})
    _refused_by_route(server, response, {401, 403})


def _wrong_key(server: Server) -> None:
    _require_key(server)
    headers = server.headers("wrong-key")
    response = server.post(server.fields(QUERY, DOCUMENTS), headers=headers)
    _refused_by_route(server, response, {401, 403})


def _unknown_model(server: Server) -> None:
    if not server.family.sends_model:
        raise NotApplicable("a request has no model")
    response = server.post(server.fields(QUERY, DOCUMENTS) | {"model": "no-such-model"})
    _refused(server, response, server.family.unknown_model)


def _unknown_path(server: Server) -> None:
    response = server.send("POST", f"{server.family.path}/no-such-path", json={})
    _refused_by_route(server, response, {404})


def _wrong_method(server: Server) -> None:
    _refused_by_route(server, server.send("DELETE", server.family.path), {405})


def _too_many(server: Server) -> None:
    limit = server.target.documents_max
    if limit is None:
        raise NotRun("needs --documents-max")
    response = server.post(server.fields(QUERY, ["a"] * (limit + 1)))
    _refused(server, response, server.family.too_large)


def _compressed(server: Server) -> None:
    text = json.dumps(server.fields(QUERY, DOCUMENTS)).encode()
    response = _post_bytes(server, gzip.compress(text), {"content-encoding": "gzip"})
    if response.status_code != 200:
        _refused_as_json(server, response, server.family.invalid | {415})


HOSTILE = {
    "half a surrogate pair": b'"\\ud83d"',
    "an escaped NUL": b'"a\\u0000b"',
    "NaN": b"NaN",
    "a number of 5,000 digits": b"1" * 5_000,
    "5,000 nested lists": b"[" * 5_000 + b"]" * 5_000,
    "bytes that are not UTF-8": b'"\xff\xfe"',
}


def _hostile(server: Server) -> None:
    text = json.dumps(server.fields(QUERY, ["REPLACED"])).encode()
    failures = []
    for name, value in HOSTILE.items():
        response = _post_bytes(server, text.replace(b'"REPLACED"', value))
        if response.status_code >= 500:
            failures.append(f"{name}: {shown(response)}")
    if failures:
        raise Unmet("a status below 500", "; ".join(failures))


def _post_bytes(
    server: Server, content: bytes, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    kind = {"content-type": "application/json"}
    all_headers = server.headers() | kind | dict(headers or {})
    return server.send("POST", server.family.path, headers=all_headers, content=content)


def _require_key(server: Server) -> None:
    if server.target.api_key is None:
        raise NotRun("needs --api-key")


def _refused(server: Server, response: httpx.Response, statuses: Collection[int]) -> None:
    _has_status(response, statuses)
    fits(response, server.family.error)


def _refused_as_json(server: Server, response: httpx.Response, statuses: Collection[int]) -> None:
    _has_status(response, statuses)
    if server.family.json_errors:
        fits(response, server.family.error)


def _refused_by_route(server: Server, response: httpx.Response, statuses: Collection[int]) -> None:
    _has_status(response, statuses)
    if server.family.route_error is not None:
        fits(response, server.family.route_error)


def _has_status(response: httpx.Response, statuses: Collection[int]) -> None:
    if response.status_code not in statuses:
        raise Unmet(f"status {' or '.join(map(str, sorted(statuses)))}", shown(response))


CHECKS = (
    *(
        Check(f"errors.{name}", f"{what} is refused.", partial(_invalid, change))
        for name, (what, change) in INVALID.items()
    ),
    Check("errors.documents-empty", "An empty list of documents is refused.", _no_documents),
    Check("errors.json-broken", "A body that is not JSON is refused.", _broken_json),
    Check("errors.body-empty", "An empty body is refused.", _empty_body),
    Check("errors.hostile", "No body makes the server fail (status 500 and above).", _hostile),
    Check("errors.compressed", "A compressed body is read or refused.", _compressed),
    Check("errors.no-key", "A request without a key is refused.", _no_key),
    Check("errors.wrong-key", "A wrong key is refused.", _wrong_key),
    Check("errors.unknown-model", "An unknown model is refused.", _unknown_model),
    Check("errors.unknown-path", "An unknown path is answered with 404.", _unknown_path),
    Check("errors.wrong-method", "A wrong method is answered with 405.", _wrong_method),
    Check("errors.too-many", "More documents than the limit are refused.", _too_many),
)
