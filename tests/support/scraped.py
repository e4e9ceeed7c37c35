"""A real service that a real Prometheus scrapes, for tests of alerts and dashboards."""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil

from serve_app.deployments.local_ray import free_port
from testkit import prometheus
from testkit.http_server import serving
from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER
from testkit.prometheus import Prometheus
from testkit.service import Service, deployment, model, serve_config
from tests.support.event_sinks import Sink, listening

GATE_TOKENS = 40_000
"""Limit of a gateway. A tenant may hold a quarter of it, so a few large requests suffice for a
refusal with the code ``overloaded``."""

DOCUMENT = f"the river and the city on the water {DOCUMENT_MARKER}"
LONG_DOCUMENT = " ".join([DOCUMENT] * 60)
"""Longer than the model's limit of tokens."""


FAST_METRICS = {
    "RAY_metrics_report_interval_ms": "3000",
    "RAY_SERVE_STATUS_GAUGE_REPORT_INTERVAL_S": "1",
}
"""Ray reports every 3 s instead of every 10 s."""


class Gpus:
    """The page of NVIDIA's dcgm-exporter for two GPUs that do not exist, with its default names."""

    def __init__(self) -> None:
        self.temperature = 64
        self.xid = 0
        self._since = time.monotonic()
        exporter = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                page = exporter.page().encode()
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.send_header("content-length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"

    def page(self) -> str:
        seconds = time.monotonic() - self._since
        lines = []
        for gpu in (0, 1):
            watts = 180 + 40 * gpu
            values: Mapping[str, float] = {
                "DCGM_FI_DEV_SM_CLOCK": 1_380 - 15 * gpu,
                "DCGM_FI_DEV_GPU_TEMP": self.temperature + gpu,
                "DCGM_FI_DEV_POWER_USAGE": watts,
                "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": round(1_000 * watts * seconds),
                "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": 0,
                "DCGM_FI_DEV_GPU_UTIL": 71 + 6 * gpu,
                "DCGM_FI_DEV_XID_ERRORS": self.xid if gpu else 0,
                "DCGM_FI_DEV_FB_FREE": 12_800,
                "DCGM_FI_DEV_FB_USED": 3_330,
            }
            labels = (
                f'gpu="{gpu}",UUID="GPU-0000000{gpu}",device="nvidia{gpu}",'
                'modelName="Tesla V100-SXM2-16GB",Hostname="synthetic"'
            )
            lines += [f"{name}{{{labels}}} {value}" for name, value in values.items()]
        return "\n".join(lines) + "\n"


@contextmanager
def exported_gpus() -> Iterator[Gpus]:
    gpus = Gpus()
    with serving(gpus.server):
        yield gpus


@dataclass
class Scraped:
    """A running service, its event sink, Prometheus, and clients in the background."""

    service: Service
    sink: Sink
    gpus: Gpus
    prometheus: Prometheus
    client: httpx.Client
    _stop: threading.Event = field(default_factory=threading.Event)

    def ask(
        self,
        documents: int = 3,
        *,
        text: str = DOCUMENT,
        model: str = "tiny",
        headers: httpx.Headers | None = None,
        wait_s: float = 60,
    ) -> int:
        """Send a request and return its status, or 0 if the client stopped waiting."""
        body = {
            "model": model,
            "query": f"how tall is the tower {QUERY_MARKER}",
            "documents": [f"{text} {index}" for index in range(documents)],
        }
        with suppress(httpx.TransportError):
            answer = self.client.post("/v1/rerank", json=body, headers=headers, timeout=wait_s)
            return answer.status_code
        return 0

    @property
    def wrong_key(self) -> httpx.Headers:
        """The id of an existing key, with a wrong secret."""
        return httpx.Headers({"Authorization": f"Bearer {self.service.key[:-8]}00000000"})

    @contextmanager
    def repeating(
        self, act: Callable[[], object], every_s: float, clients: int = 1
    ) -> Iterator[None]:
        """Call ``act`` regularly in the background while the block runs, or until `end`."""
        stop = threading.Event()

        def run() -> None:
            while not (stop.is_set() or self._stop.is_set()):
                act()
                stop.wait(every_s)

        threads = [threading.Thread(target=run) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def end(self) -> None:
        """Let all clients stop after their current request."""
        self._stop.set()

    @contextmanager
    def frozen(self, application: str) -> Iterator[None]:
        """Stop all replicas of an application while the block runs."""
        processes = self.service.replicas(application)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    @contextmanager
    def locked_ledger(self) -> Iterator[None]:
        """Hold the lock for writing of the SQLite database while the block runs."""
        with closing(sqlite3.connect(self.service.var_dir / "rerank.db", timeout=30)) as database:
            database.isolation_level = None
            database.execute("BEGIN IMMEDIATE")
            yield  # Closing the connection rolls back.


@contextmanager
def scraped(folder: Path, factor: int, scrape_s: float) -> Iterator[Scraped]:
    """Run a service with two scorers of ``tiny`` and an autoscaled one of ``embedded``.

    No second scorer of ``embedded`` fits on the machine. For ``factor`` and ``scrape_s`` see
    `testkit.prometheus`.
    """
    from testkit.tiny_models import build  # noqa: PLC0415 - imports torch

    autoscaled = deployment(
        1,
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": 2,
            "target_ongoing_requests": 1,
            "metrics_interval_s": 1,
            "look_back_period_s": 2,
            "upscale_delay_s": 1,
        },
        ray_actor_options={"num_cpus": 0.6 * (os.cpu_count() or 1)},
    )
    del autoscaled["num_replicas"]
    with listening() as sink, exported_gpus() as gpus:
        config = serve_config(
            [
                model("tiny", str(build(folder / "tiny")), deployment(2)),
                model("embedded", "embedded", autoscaled),
            ],
            deployment(1),
            gate_tokens_max=GATE_TOKENS,
            database_timeout_s=1,
            events_url=sink.url,
        )
        fast = FAST_METRICS if factor > 1 else {}
        service = Service.start(folder, config, free_port(), **fast)
        targets = {
            "ray": service.metrics_address.removeprefix("http://").removesuffix("/metrics"),
            "haproxy": f"127.0.0.1:{_haproxy_port(service)}",
            "dcgm": gpus.address,
        }
        try:
            with (
                prometheus.running(folder, prometheus.static(targets, scrape_s), factor) as running,
                service.client() as client,
            ):
                yield Scraped(service, sink, gpus, running, client)
        finally:
            if service.process.poll() is None:
                service.stop()


def _haproxy_port(service: Service) -> str:
    """Return the port of HAProxy's metrics, which `rerank-serve up` chooses."""
    for process in service.family():
        with suppress(psutil.Error):
            if port := process.environ().get("RAY_SERVE_HAPROXY_METRICS_PORT"):
                return port
    raise AssertionError("no process has the port of HAProxy's metrics")
