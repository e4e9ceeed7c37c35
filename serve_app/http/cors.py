"""CORS: which web pages of other origins may call the API.

The middleware answers a preflight before a key is checked or a place is taken. It adds its headers
to errors, too, because a browser hides other errors from the page.
"""

from collections.abc import Sequence

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from serve_app.http.headers import RATE_LIMIT_HEADERS, REPLAYED_HEADER
from serve_app.http.request_ids import HEADER as REQUEST_ID_HEADER

METHODS = ("GET", "POST")
EXPOSED_HEADERS = (
    *(REQUEST_ID_HEADER, "retry-after", "server-timing", "x-compute-tokens", REPLAYED_HEADER),
    *RATE_LIMIT_HEADERS,
)


def cors(allowed_origins: Sequence[str]) -> list[Middleware]:
    if not allowed_origins:
        return []
    # Without `allow_credentials`, because no route reads cookies.
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=allowed_origins,
            allow_methods=METHODS,
            allow_headers=("*",),  # SDKs in browsers send headers of their own.
            expose_headers=EXPOSED_HEADERS,
        )
    ]
