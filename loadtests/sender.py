"""Sends the requests of one process on schedule, answered or not."""

import time
from collections import Counter
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

    concurrency = 1_000_000  # connections; unlimited, since the rate does not depend on answers

    def __init__(self, environment: Any) -> None:
        timeout_s = environment.parsed_options.request_timeout_s
        self.network_timeout = self.connection_timeout = timeout_s
        super().__init__(environment)
        self.client.client.valid_response_codes = ANY_STATUS  # `send` judges them
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
        plan: Plan = run.plan
        schedule = plan.schedule()
        tenants, tiers = plan.tenants_and_tiers(len(schedule), len(self._keys))
        part = slice(run.index, None, run.processes)
        mine = schedule.share(run.index, run.processes)
        model = self.environment.parsed_options.model or None
        bodies = Bodies(plan.seed + 1_000 * run.index, plan.pair_tokens, model)
        for tokens in set(mine.pair_tokens.tolist()):
            bodies.prepare(tokens)
        names = plan.classes
        tier_names: list[str | None] = [name for name, _ in plan.tiers]
        reports = gevent.spawn(self._report)
        requests = Group()
        began = time.perf_counter()
        for at_s, documents, kind, tokens, tenant, tier in zip(
            mine.at_s.tolist(),
            mine.documents.tolist(),
            mine.classes.tolist(),
            mine.pair_tokens.tolist(),
            tenants[part].tolist(),
            tiers[part].tolist(),
            strict=True,
        ):
            body = bodies.body(documents, tier_names[tier] if tier_names else None, tokens)
            while (wait_s := began + at_s - time.perf_counter()) > 0:
                gevent.sleep(wait_s)
            blank = Row(at_s, 0, 0, 0, 0, documents, 0, 0, 0, 0, kind, tenant, tier)
            requests.spawn(self._send, blank, body, names[kind], began)
        requests.join()
        reports.kill()
        self._send_report(done=True)
        raise StopUser

    def _send(self, blank: Row, body: bytes, name: str, began: float) -> None:
        due = began + blank.at_s
        self._sent += 1
        error_s = time.perf_counter() - due
        key = self._keys[int(blank.tenant)]
        outcome = send(self.client, body, key, int(blank.documents), name, due)
        if outcome.problem:
            self._problems[outcome.problem] += 1
        self._records.add(
            blank._replace(
                schedule_error_s=error_s,
                latency_s=time.perf_counter() - due,
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
