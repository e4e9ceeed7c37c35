"""Sends the requests of one process on schedule, without waiting for earlier answers."""

import gc
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import gevent
from gevent.pool import Group
from locust import FastHttpUser, task
from locust.exception import StopUser

from loadtests.client import send
from loadtests.options import api_keys
from loadtests.plan import Plan
from loadtests.records import Records, Row
from loadtests.traffic import Bodies

REPORT_EVERY_S = 1.0
REPORT = "rerank_requests"
"""The message to the master with the requests since the last one."""

ANY_STATUS = frozenset(range(100, 600))


class Sender(FastHttpUser):
    """All clients of one process. Each request has its own greenlet, and waits for no other."""

    concurrency = 1_000_000  # Connections; in effect no limit.

    def __init__(self, environment: Any) -> None:
        timeout_s = environment.parsed_options.request_timeout_s
        self.network_timeout = self.connection_timeout = timeout_s
        super().__init__(environment)
        self.client.client.valid_response_codes = ANY_STATUS  # `send` checks them.
        self._records = Records()
        self._problems: Counter[str] = Counter()
        self._sent = 0

    @task
    def send_all(self) -> None:
        """Send the share of this process, wait for the answers, and end."""
        run = self.environment.rerank
        if not run.claim():
            raise StopUser
        self._keys = api_keys()
        rows = [*self._rows(run.plan, run.index, run.processes)]
        model = self.environment.parsed_options.model or None
        bodies = Bodies(run.plan.seed + 1_000 * run.index, run.plan.pair_tokens, model)
        for pair_tokens in {pair_tokens for _, pair_tokens in rows}:
            bodies.prepare(pair_tokens)
        tiers = [name for name, _ in run.plan.tiers]
        gc.collect()
        gc.freeze()  # Collections of these objects would delay requests.
        reports = gevent.spawn(self._report)
        requests = Group()
        began = time.perf_counter()
        for row, pair_tokens in rows:
            tier = tiers[int(row.tier)] if tiers else None
            body = bodies.body(int(row.documents), tier, pair_tokens)
            while (wait_s := began + row.at_s - time.perf_counter()) > 0:
                gevent.sleep(wait_s)
            requests.spawn(self._send, row, body, run.plan.classes[int(row.kind)], began)
        requests.join()
        reports.kill()
        self._send_report(done=True)
        raise StopUser

    def _rows(self, plan: Plan, index: int, processes: int) -> Iterator[tuple[Row, float]]:
        """Yield the requests of this process, without results, and the lengths of their pairs."""
        schedule = plan.schedule()
        tenants, tiers = plan.tenants_and_tiers(len(schedule), len(self._keys))
        part = slice(index, None, processes)
        columns = (
            *(schedule.at_s, schedule.documents, schedule.pair_tokens, schedule.classes),
            *(tenants, tiers),
        )
        for at_s, documents, pair_tokens, kind, tenant, tier in zip(
            *(column[part].tolist() for column in columns), strict=True
        ):
            yield Row(at_s, 0, 0, 0, 0, documents, 0, 0, 0, 0, kind, tenant, tier), pair_tokens

    def _send(self, row: Row, body: bytes, name: str, began: float) -> None:
        due = began + row.at_s
        self._sent += 1
        error_s = time.perf_counter() - due
        key = self._keys[int(row.tenant)]
        outcome = send(self.client, body, key, int(row.documents), name, due)
        if outcome.problem:
            self._problems[outcome.problem] += 1
        self._records.add(
            row._replace(
                schedule_error_s=error_s,
                latency_s=outcome.latency_s,
                status=outcome.status,
                correct=not outcome.problem,
                tokens=outcome.tokens,
                queue_s=outcome.queue_s,
                run_s=outcome.run_s,
                micro_dollars=outcome.micro_dollars,
            )
        )

    def _report(self) -> None:
        while True:
            gevent.sleep(REPORT_EVERY_S)
            self._send_report(done=False)

    def _send_report(self, *, done: bool) -> None:
        data = {
            "rows": self._records.take(),
            "problems": dict(self._problems),
            "sent": self._sent,
            "done": done,
            "index": self.environment.rerank.index,
        }
        self._problems.clear()
        self.environment.runner.send_message(REPORT, data)
