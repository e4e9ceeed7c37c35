"""CORS: what a web page needs to call the server."""

from conformance.check import Check
from conformance.server import NotRun, Server, Unmet
from conformance.texts import DOCUMENTS, QUERY

ALLOW_ORIGIN = "access-control-allow-origin"


def preflight(server: Server) -> None:
    headers = {
        "origin": _origin(server),
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    response = server.send("OPTIONS", server.family.path, headers=headers)
    if not 200 <= response.status_code < 300:
        raise Unmet("a status from 200 to 299", f"{response.status_code}")
    _allows(server, response.headers.get(ALLOW_ORIGIN))
    allowed = response.headers.get("access-control-allow-headers", "").lower()
    if "*" not in allowed and not {"authorization", "content-type"} <= set(
        allowed.replace(" ", "").split(",")
    ):
        raise Unmet("authorization and content-type allowed", allowed or "no header allowed")


def answers(server: Server) -> None:
    headers = server.headers() | {"origin": _origin(server)}
    response = server.post(server.fields(QUERY, DOCUMENTS), headers=headers)
    _allows(server, response.headers.get(ALLOW_ORIGIN))


def errors(server: Server) -> None:
    headers = server.headers() | {"origin": _origin(server)}
    response = server.post(server.fields(QUERY, []), headers=headers)
    _allows(server, response.headers.get(ALLOW_ORIGIN))


def _origin(server: Server) -> str:
    if server.target.origin is None:
        raise NotRun("needs --origin")
    return server.target.origin


def _allows(server: Server, allowed: str | None) -> None:
    origin = _origin(server)
    if allowed not in {origin, "*"}:
        raise Unmet(f"{ALLOW_ORIGIN}: {origin}", allowed or "absent")


CHECKS = (
    Check("browsers.preflight", "A browser's preflight is answered.", preflight),
    Check("browsers.answers", "A page can read answers.", answers),
    Check("browsers.errors", "A page can read errors.", errors),
)
