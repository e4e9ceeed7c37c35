"""The middlewares that Ray Serve puts around every HTTP server of its own.

``cluster/ray.env`` names `middlewares` in ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH``, so Ray
calls it in each gateway and in its own proxy on the head. HAProxy sends requests to that proxy
while no gateway answers. The proxy passes a request on as a message between processes, so a body
cannot be held back there.
"""

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware

from serve_app.http.inbound import InboundFilter


def middlewares() -> list[Middleware]:
    """The filter of inbound requests."""
    return [Middleware(InboundFilter, holds_bodies=_in_a_replica())]


def _in_a_replica() -> bool:
    try:
        serve.get_replica_context()
    except RayServeException:
        return False
    return True
