"""Binds `serve_app.telemetry.metrics` to Ray's Prometheus endpoint."""

from ray.serve import metrics as ray_metrics

from serve_app.domain.clock import SystemClock
from serve_app.telemetry.metrics import METRICS, Kind, Metric, Metrics


class RaySink:
    """All metrics, created once per replica; Ray adds the application, deployment and replica."""

    def __init__(self) -> None:
        self._counters = {
            metric.name: ray_metrics.Counter(metric.name, metric.help, metric.labels)
            for metric in METRICS
            if metric.kind is Kind.COUNTER
        }
        self._gauges = {
            metric.name: ray_metrics.Gauge(metric.name, metric.help, metric.labels)
            for metric in METRICS
            if metric.kind is Kind.GAUGE
        }
        self._histograms = {
            metric.name: ray_metrics.Histogram(
                metric.name, metric.help, list(metric.buckets), metric.labels
            )
            for metric in METRICS
            if metric.kind is Kind.HISTOGRAM
        }

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        match metric.kind:
            case Kind.COUNTER:
                if value > 0:  # Ray does not accept 0.
                    self._counters[metric.name].inc(value, labels)
            case Kind.GAUGE:
                self._gauges[metric.name].set(value, labels)
            case Kind.HISTOGRAM:
                self._histograms[metric.name].observe(value, labels)


def ray_metrics_sink() -> Metrics:
    return Metrics(RaySink(), SystemClock())
