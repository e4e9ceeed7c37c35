"""The service without fair dispatch; `benchmarks.service.peers` compares it with fair dispatch.

Deploy it with ``import_path: benchmarks.service.fifo:gateways``. Every portion has the largest size
and is sent immediately, so all portions wait at the scorers, first come, first served.
"""

from typing import Any

from ray import serve
from ray.serve import Application

from serve_app import app
from serve_app.deployments import gateway
from serve_app.dispatch import dispatch_queue
from serve_app.dispatch.inflight_window import InflightWindow
from serve_app.domain.units import Instant, Tokens


class UnlimitedWindow(InflightWindow):
    """A window that any number of portions fit into."""

    @property
    def portion_tokens(self) -> Tokens:
        return self._portion_tokens_max

    def tokens(self, now: Instant) -> Tokens:  # noqa: ARG002 - as in the base class
        return Tokens(10**12)


class FifoGateway(gateway.Gateway.func_or_class):  # type: ignore[misc, name-defined]  # the wrapped class is Any to mypy
    """`Gateway` with unlimited windows."""

    async def __init__(self, *args: Any) -> None:  # type: ignore[misc]  # as in Ray's wrapper
        dispatch_queue.InflightWindow = UnlimitedWindow  # type: ignore[attr-defined]  # imported there
        await super().__init__(*args)


def gateways(args: dict[str, Any]) -> Application:
    """Build the application as `serve_app.app.gateways`, but without fair dispatch."""
    app.Gateway = serve.deployment(FifoGateway)  # type: ignore[attr-defined]  # imported there
    return app.gateways(args)
