"""Read a request body within limits, whatever its headers claim."""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.requests import Request

from serve_app.domain.errors import (
    BodyTimeout,
    ClientGone,
    CompressedBody,
    InvalidRequest,
    TooLarge,
)
from serve_app.domain.units import Seconds
from serve_app.http.inbound import want_body

RECHECK_S = 1.0
"""Interval at which the caller is authenticated again while the body arrives."""

_LENGTH_DIGITS_MAX = 18

Recheck = Callable[[], Awaitable[object]]
Progress = Callable[[int], None]


async def read_body(
    request: Request, bytes_max: int, timeout_s: Seconds, recheck: Recheck, progress: Progress
) -> bytearray:
    """Return the whole body.

    ``recheck`` is called every `RECHECK_S`, and raises if the caller is no longer allowed.
    ``progress`` gets the number of bytes so far.

    Raises: TooLarge, BodyTimeout, ClientGone, CompressedBody, and InvalidRequest for an invalid
    length.
    """
    _check_headers(request, bytes_max)
    want_body(request)
    body = bytearray()
    now = asyncio.get_running_loop().time
    ends_at = now() + timeout_s
    while True:
        try:
            async with asyncio.timeout_at(min(ends_at, now() + RECHECK_S)):
                while True:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    body += message.get("body", b"")
                    progress(len(body))
                    if len(body) > bytes_max:
                        raise TooLarge("body", bytes_max, "bytes")
                    if not message.get("more_body", False):
                        return body
        except TimeoutError:
            if now() >= ends_at:
                raise BodyTimeout(timeout_s) from None
        await recheck()


def declared_bytes(request: Request, bytes_max: int) -> int:
    """Return the declared length, at most ``bytes_max``; without a valid one, ``bytes_max``."""
    length = request.headers.get("content-length", "").strip()
    believable = length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS_MAX
    return min(int(length), bytes_max) if believable else bytes_max


def _check_headers(request: Request, bytes_max: int) -> None:
    # A small compressed body can expand to gigabytes.
    if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise CompressedBody("content-encoding", "is not supported; send the body uncompressed")
    length = request.headers.get("content-length", "0").strip()
    if not (length.isascii() and length.isdigit()):
        raise InvalidRequest("content-length", "must be a number of bytes")
    if len(length) > _LENGTH_DIGITS_MAX or int(length) > bytes_max:
        raise TooLarge("body", bytes_max, "bytes")
