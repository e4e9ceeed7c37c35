"""The service without metering; `benchmarks.service.metering` deploys it.

Deploy it with ``import_path: benchmarks.service.unmetered:gateways``. Requests are authenticated,
but not limited or charged.
"""

from typing import Any

from ray import serve
from ray.serve import Application

from benchmarks.ledger.unmetered import UnmeteredLedger
from serve_app import app
from serve_app.deployments import gateway


class UnmeteredGateway(gateway.Gateway.func_or_class):  # type: ignore[misc, name-defined]  # the wrapped class is Any to mypy
    """`Gateway` with an unmetered ledger."""

    async def __init__(self, *args: Any) -> None:  # type: ignore[misc]  # as in Ray's wrapper
        gateway.SqlLedger = UnmeteredLedger  # type: ignore[attr-defined]  # imported there
        await super().__init__(*args)


def gateways(args: dict[str, Any]) -> Application:
    """Build the application as `serve_app.app.gateways`, but with the unmetered gateway."""
    app.Gateway = serve.deployment(UnmeteredGateway)  # type: ignore[attr-defined]  # imported there
    return app.gateways(args)
