"""Serve the files of the pages from memory, with ETags and compressed for most clients."""

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

from serve_app.domain.errors import NotFound
from serve_app.http.error_boundary import Endpoint
from serve_app.protocols.json_body import shown

POLICY = (
    "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    # A client asks for each file again, so a page mixes two releases only during a rollout.
    "cache-control": "no-cache",
    "vary": "accept-encoding",
}

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    compressed: bytes
    media_type: str
    etag: str


@cache
def _all_files() -> dict[str, _File]:
    return dict(_read(resources.files("serve_app.http.page").joinpath("static"), ""))


class PageFiles:
    """Reads the files once per process."""

    def __init__(self) -> None:
        self._files = _all_files()

    def page(self, name: str) -> Endpoint:
        async def answer(request: Request) -> Response:
            return _response(request, self._files[name])

        return answer

    async def answer(self, request: Request) -> Response:
        """Raises: NotFound."""
        name = request.path_params["name"]
        if name not in self._files:
            raise NotFound(f"file '{shown(name)}'", None)
        return _response(request, self._files[name])


def _read(folder: Traversable, prefix: str) -> list[tuple[str, _File]]:
    found = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _read(each, f"{prefix}{each.name}/")
        else:
            content = each.read_bytes()
            file = _File(
                content,
                gzip.compress(content, mtime=0),
                MEDIA_TYPES[f".{each.name.rpartition('.')[2]}"],
                hashlib.sha256(content).hexdigest()[:32],
            )
            found.append((f"{prefix}{each.name}", file))
    return found


def _response(request: Request, file: _File) -> Response:
    compressed = "gzip" in request.headers.get("accept-encoding", "")
    # The two forms of a file need different tags.
    etag = f'"{file.etag}{"-gzip" if compressed else ""}"'
    headers = HEADERS | {"etag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if compressed:
        headers["content-encoding"] = "gzip"
    content = file.compressed if compressed else file.content
    return Response(content, headers=headers, media_type=file.media_type)
