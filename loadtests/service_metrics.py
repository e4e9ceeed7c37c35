"""Samples of the service's own metrics during a load test: queues, replicas and stages."""

import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

EVERY_S = 2.0
TIMEOUT_S = 5.0


@dataclass(slots=True)
class Sample:
    """The metrics of all nodes at one time. Ray updates its page every few seconds."""

    at: float
    """Seconds since 1970."""

    queued_tokens: float = 0.0
    """Tokens in the gateways' queues and at the scorers."""

    gateways: int = 0
    scorers: int = 0
    stage_s: dict[str, float] = field(default_factory=dict)
    """Total time by stage so far."""

    charged: float = 0.0
    """Requests that were charged so far."""


class MetricsWatch:
    """Samples the metrics pages of all nodes every two seconds, in a thread of its own.

    Args:
        urls: The pages, such as ``http://127.0.0.1:8080/metrics``; none for no samples.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.samples: list[Sample] = []
        self.problem: str | None = None
        """Why the last sample failed."""

        self._urls = urls
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(each) for each in self.samples]

    def __enter__(self) -> Self:
        if self._urls:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._urls:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                pages = [_page(url) for url in self._urls]
                self.samples.append(sample(pages, time.time()))  # noqa: TID251 - joins with summaries
                self.problem = None
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                self.problem = str(error)

    def between(self, begin: float, end: float) -> list[Sample]:
        """Return the samples of a period, in seconds since 1970."""
        return [each for each in self.samples if begin <= each.at <= end]


def _page(url: str) -> str:
    return httpx.get(url, timeout=TIMEOUT_S).raise_for_status().text


def sample(pages: Sequence[str], at: float) -> Sample:
    """Read the metrics pages of all nodes. Raises: ValueError: A page has another format."""
    found = Sample(at)
    for page in pages:
        for family in text_string_to_metric_families(page):
            for each in family.samples:
                _add(found, each.name, each.labels, each.value)
    return found


def _add(found: Sample, name: str, labels: dict[str, str], value: float) -> None:
    match name:
        case "ray_rerank_backlog_tokens" | "ray_rerank_inflight_tokens":
            found.queued_tokens += value
        case "ray_rerank_stage_seconds_sum":
            stage = labels["stage"]
            found.stage_s[stage] = found.stage_s.get(stage, 0.0) + value
        case "ray_rerank_stage_seconds_count" if labels["stage"] == "commit":
            found.charged += value
        case "ray_serve_deployment_replica_healthy" if labels["deployment"] == "gateway":
            found.gateways += round(value)
        case "ray_serve_deployment_replica_healthy" if labels["deployment"] == "scorer":
            found.scorers += round(value)


def stage_ms(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the mean time of each stage per charged request, in milliseconds.

    Ray counts each time as the middle of its bucket, so these means are approximate.
    """
    if len(samples) < 2 or samples[-1].charged <= samples[0].charged:
        return {}
    first, last = samples[0], samples[-1]
    requests = last.charged - first.charged
    return {
        stage: round(1_000 * (total - first.stage_s.get(stage, 0.0)) / requests, 3)
        for stage, total in last.stage_s.items()
    }
