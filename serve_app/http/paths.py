"""Normalize the paths that clients join from a base URL and a route.

A base URL may end in a slash or in a version that the route also has. There is no redirect, because
some clients lose the body on one. LiteLLM appends the route of NVIDIA's hosted models to the base
URL of a NIM, so that path is an alias of `/v1/ranking`.
"""

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_NVIDIA_HOSTED = re.compile(r"/v1/retrieval/.+/reranking")

_VERSION_BEFORE_VERSION = re.compile(r"/v[12](?=/v[12]/)")


class JoinedPaths:
    """ASGI middleware for `route_path`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": route_path(scope["path"])}
        await self._app(scope, receive, send)


def route_path(path: str) -> str:
    if path.startswith("/docs"):  # The links in the page are relative to its path.
        return path
    path = re.sub("//+", "/", path)
    if version := _VERSION_BEFORE_VERSION.match(path):
        path = path[version.end() :]
    path = path.rstrip("/") or "/"
    return "/v1/ranking" if _NVIDIA_HOSTED.fullmatch(path) else path
