"""Reads a body within its limit, whatever its headers claim."""

from starlette.requests import Request

from serve_app.domain.errors import ClientGone, InvalidRequest, TooLarge

_LENGTH_DIGITS_MAX = 18


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The whole body. Not bounded in time: that is the caller's.

    Raises:
        TooLarge: By its ``content-length``, before anything is read; or by what arrived, where the
            length is absent or false. The rest stays unread.
        InvalidRequest: It is compressed, or its length is no number.
        ClientGone: The client hung up half-way.
    """
    _check_headers(request, bytes_max)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > bytes_max:
            raise TooLarge("body", bytes_max, "bytes")
        if not message.get("more_body", False):
            return b"".join(parts)


def declared_bytes(request: Request, bytes_max: int) -> int:
    """How much the body may turn out to be: what its headers say, or else the most allowed."""
    length = request.headers.get("content-length", "").strip()
    believable = length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS_MAX
    return min(int(length), bytes_max) if believable else bytes_max


def _check_headers(request: Request, bytes_max: int) -> None:
    # A small compressed body can unfold into gigabytes.
    if request.headers.get("content-encoding", "").strip().lower() not in ("", "identity"):
        raise InvalidRequest("content-encoding", "is not supported; send the body uncompressed")
    length = request.headers.get("content-length", "0").strip()
    if not (length.isascii() and length.isdigit()):
        raise InvalidRequest("content-length", "must be a number of bytes")
    if len(length) > _LENGTH_DIGITS_MAX or int(length) > bytes_max:
        raise TooLarge("body", bytes_max, "bytes")
