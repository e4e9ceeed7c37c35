"""Bind `serve_app.telemetry.metrics` to Ray's Prometheus endpoint."""

import threading
import time
from collections import defaultdict

from ray.serve import metrics as ray_metrics

from serve_app.domain.clock import SystemClock
from serve_app.telemetry.metrics import METRICS, Kind, Metric, Metrics

FLUSH_S = 1.0
"""Interval at which Ray gets counters and gauges."""

Series = tuple[str, tuple[tuple[str, str], ...]]
"""A metric's name and labels."""


class RaySink:
    """All metrics, created once per replica; Ray adds the application, deployment and replica.

    A call of Ray's metrics takes 10 us, so Ray gets counters and gauges only once per interval. Ray
    drops a gauge that was not set during two of its own intervals, so gauges are sent even if they
    did not change.
    """

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
        self._lock = threading.Lock()
        self._sums: defaultdict[Series, float] = defaultdict(float)
        self._values: dict[Series, float] = {}
        threading.Thread(target=self._flush_regularly, name="metrics", daemon=True).start()

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        if metric.kind is Kind.HISTOGRAM:
            self._histograms[metric.name].observe(value, labels)
            return
        series = metric.name, tuple(labels.items())
        with self._lock:
            if metric.kind is Kind.COUNTER:
                self._sums[series] += value
            else:
                self._values[series] = value

    def flush(self) -> None:
        with self._lock:
            sums, self._sums = self._sums, defaultdict(float)
            values = dict(self._values)
        for (name, labels), total in sums.items():
            if total > 0:  # Ray does not accept 0.
                self._counters[name].inc(total, dict(labels))
        for (name, labels), value in values.items():
            self._gauges[name].set(value, dict(labels))

    def _flush_regularly(self) -> None:
        while True:
            time.sleep(FLUSH_S)
            self.flush()


def ray_metrics_sink() -> Metrics:
    return Metrics(RaySink(), SystemClock())
