"""A node whose disk and memory are full raises alerts."""

import os
from functools import partial
from pathlib import Path

import pytest

from testkit import prometheus
from testkit.service import wait_for
from tests.support.small_node import small_node

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

ALERTS = {"RerankDiskFull", "RerankMemoryFull"}


MAY_LIMIT = os.geteuid() == 0 and os.access("/sys/fs/cgroup", os.W_OK)


@pytest.mark.skipif(not MAY_LIMIT, reason="Only root can mount a disk and limit memory.")
def test_a_full_disk_and_full_memory_raise_alerts(tmp_path: Path) -> None:
    with small_node(tmp_path) as node:
        config = prometheus.static({"ray": node.metrics}, scrape_s=1)
        with prometheus.running(tmp_path, config, factor=60) as running:
            for metric in ("ray_node_disk_utilization_percentage", "ray_node_mem_used"):
                wait_for(partial(running.query, metric), 120, metric)
            assert not ALERTS & (running.alerts() | running.alerts("pending"))

            node.fill_disk()
            node.fill_memory()

            wait_for(lambda: running.alerts() >= ALERTS, 180, "the alerts")
