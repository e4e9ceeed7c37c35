"""``GET /admin/v1/status``: the present load."""

from starlette.requests import Request
from starlette.responses import Response

from serve_app.access.api_keys import SCOPE_ADMIN
from serve_app.http.error_boundary import Endpoint
from serve_app.http.headers import sent_keys
from serve_app.http.service import Service
from serve_app.protocols.load import render_status


def status_endpoint(service: Service) -> Endpoint:
    async def status(request: Request) -> Response:
        await service.access.authenticate(sent_keys(request.headers), SCOPE_ADMIN)
        readiness = await service.catalogue.readiness()
        body = render_status(
            await service.monitor.load(),
            await service.catalogue.cards(),
            service.recent_codes.counts(),
            ledger=readiness.ledger,
        )
        return Response(body, media_type="application/json")

    return status
