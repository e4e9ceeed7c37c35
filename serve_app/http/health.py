"""``GET /health`` (the process is alive) and ``GET /ready`` (the service can answer requests).

A gateway must not be restarted when only a model is unavailable.
"""

from starlette.requests import Request
from starlette.responses import Response

from serve_app.http.error_boundary import Endpoint
from serve_app.http.problems import NOT_READY
from serve_app.http.service import Service
from serve_app.protocols.status import render_health, render_readiness


async def health(_request: Request) -> Response:
    return Response(render_health(), media_type="application/json")


def ready_endpoint(service: Service) -> Endpoint:
    async def ready(_request: Request) -> Response:
        readiness = await service.catalogue.readiness()
        body = render_readiness(readiness)
        if readiness.ready:
            return Response(body, media_type="application/json")
        headers = {"retry-after": str(NOT_READY.retry_after_s)}
        return Response(body, NOT_READY.status, headers, "application/json")

    return ready
