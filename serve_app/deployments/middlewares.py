"""The middlewares that Ray Serve puts around every HTTP server of its own.

Ray calls `middlewares` in each gateway, and in its own proxy on the head, which gets requests while
no gateway answers. The proxy passes a request on as one message, so it cannot hold back a body; see
`docs/decisions/0014`.
"""

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware

from serve_app.http.inbound import InboundFilter


def middlewares() -> list[Middleware]:
    return [Middleware(InboundFilter, holds_bodies=_in_a_replica())]


def _in_a_replica() -> bool:
    try:
        serve.get_replica_context()
    except RayServeException:
        return False
    return True
