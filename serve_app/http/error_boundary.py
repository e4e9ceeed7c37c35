"""Convert errors to responses for all routes but the scoring routes."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from serve_app.domain.errors import RerankError
from serve_app.http.problems import problem
from serve_app.http.request_ids import request_ids
from serve_app.http.service import Service
from serve_app.protocols.problem_body import RenderProblem, render_problem
from serve_app.telemetry.logs import FAILURE, failure_fields

Endpoint = Callable[[Request], Awaitable[Response]]


def guarded(
    service: Service, endpoint: Endpoint, render: RenderProblem = render_problem
) -> Endpoint:
    """Convert every exception of ``endpoint`` to a response, whose body ``render`` returns."""

    async def answering(request: Request) -> Response:
        ids = request_ids(request)
        try:
            return await endpoint(request)
        except RerankError as error:
            return problem(error, ids.own, render)
        except Exception as error:  # noqa: BLE001  The outermost handler of a request.
            service.log(
                {"event": FAILURE, "id": ids.own, "x_request_id": ids.shown, "status": 500}
                | failure_fields(error)
            )
            return problem(error, ids.own, render)

    return answering
