"""Connect a replica to the collector of traces. OpenTelemetry is the extra ``traces``."""

from importlib.util import find_spec

from ray import serve

from serve_app.telemetry.traces import Collector, NoCollector

EXPORTER = "opentelemetry.exporter.otlp.proto.http"


class TracesNotInstalled(Exception):
    """The settings ask for traces, and their packages are missing."""

    def __init__(self) -> None:
        super().__init__("traces need more packages: pip install 'rerank-serve[traces]'")


def connect(service: str) -> Collector:
    """Return the collector for this replica. Imports OpenTelemetry. Raises: TracesNotInstalled."""
    if not is_installed():
        raise TracesNotInstalled
    from serve_app.telemetry.otlp import OtlpCollector  # noqa: PLC0415 - an extra

    return OtlpCollector(service, serve.get_replica_context().replica_id.unique_id)


def connect_if_installed(service: str) -> Collector:
    """Return the collector, or one that drops all spans if the packages are missing."""
    return connect(service) if is_installed() else NoCollector()


def is_installed() -> bool:
    try:
        return find_spec(EXPORTER) is not None
    except ModuleNotFoundError:  # A package that contains it is missing.
        return False
