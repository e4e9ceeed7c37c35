"""CORS: which web pages of other origins may call the API from a browser.

The middleware answers a preflight itself, before a key is checked or a place is taken. It adds its
headers to errors, too: a browser hides an answer without them from the page.
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
    """Return the middleware for ``allowed_origins``, of which ``*`` means any; none for none."""
    if not allowed_origins:
        return []
    # Without `allow_credentials`, because no route reads cookies: a page must know the API key.
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=allowed_origins,
            allow_methods=METHODS,
            allow_headers=("*",),  # SDKs in browsers send headers of their own.
            expose_headers=EXPOSED_HEADERS,
        )
    ]
