"""One process of a run: its share of the requests and, in the master, the results."""

import json
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import gevent
import numpy as np
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtests.options import api_keys, plan_of, thresholds_of
from loadtests.plan import Plan
from loadtests.progress import progress_line, result_lines
from loadtests.records import Records
from loadtests.sender import REPORT
from loadtests.summary import generator, measured, summarize

SHARE = "rerank_share"
"""The message to a worker with the plan and its share of the requests."""

PROGRESS_EVERY_S = 5.0
STRAGGLERS_S = 15.0
"""Time that processes have for their last report, after the timeout of the last request."""

PASSED, FAILED = 0, 1


class Run:
    """The run of this process; ``environment.rerank`` in Locust's environment."""

    def __init__(self, environment: Environment) -> None:
        self.plan: Plan
        self.index = 0
        self.processes = 1
        self._environment = environment
        self._is_claimed = True
        self._results: _Results | None = None
        runner = environment.runner
        if isinstance(runner, WorkerRunner):
            runner.register_message(SHARE, self._take_share)
            return
        try:
            self.plan = plan_of(environment.parsed_options)
            self.plan.schedule()
            self._tenants = len(api_keys())
            if environment.parsed_options.headless and not environment.host:
                raise ValueError("The address of the service is missing, as -H or --host")
        except ValueError as error:
            raise SystemExit(f"Error: {error}.") from None
        runner.register_message(REPORT, self._take_report)
        environment.events.test_start.add_listener(self._start)
        environment.events.test_stop.add_listener(self._conclude)
        environment.events.quitting.add_listener(self._quit)

    def claim(self) -> bool:
        """Return whether the share of this process is still to be sent, and mark it as taken.

        Locust moves the user of a lost worker to another one, which must not send its share again.
        """
        is_free, self._is_claimed = not self._is_claimed, True
        return is_free

    def is_over(self) -> bool:
        """Return whether each process is done or lost."""
        if self._results is None or self._results.summary is not None:
            return False  # The run is about to start.
        if len(self._results.done) >= self.processes:
            return True
        options = self._environment.parsed_options
        longest_s = self.plan.duration_s + options.request_timeout_s + STRAGGLERS_S
        elapsed_s = time.perf_counter() - self._results.began
        return bool(self._environment.runner.worker_count == 0) or elapsed_s > longest_s

    def _take_share(self, msg: Any, **_: Any) -> None:
        self.plan = Plan.from_json(msg.data["plan"])
        self.index, self.processes = msg.data["index"], msg.data["processes"]
        self._is_claimed = False

    def _start(self, **_: Any) -> None:
        """Prepare for results, and give each worker its share."""
        self.plan = plan_of(self._environment.parsed_options)  # Locust's page may have changed it.
        self._results = _Results()
        self._is_claimed = False
        runner = self._environment.runner
        if isinstance(runner, MasterRunner):
            workers = [worker.id for worker in runner.clients.all]
            self.processes = len(workers)
            for index, worker in enumerate(workers):
                share = {"plan": self.plan.as_json(), "index": index, "processes": len(workers)}
                runner.send_message(SHARE, share, client_id=worker)
        if self._environment.parsed_options.headless:
            gevent.spawn(self._show_progress, self._results)

    def _take_report(self, msg: Any, **_: Any) -> None:
        assert self._results is not None
        self._results.take(msg.data)

    def _show_progress(self, results: "_Results") -> None:
        shown = 0
        while True:
            gevent.sleep(PROGRESS_EVERY_S)
            if results.summary is not None:
                return
            table, ended = results.records.table(shown), len(results.records)
            sent = sum(results.sent.values())
            elapsed_s = time.perf_counter() - results.began
            click.echo(progress_line(table, sent, sent - ended, elapsed_s, self.plan))
            shown = ended

    def _conclude(self, **_: Any) -> None:
        """Write the results once, when the requests are answered or the run is interrupted."""
        results = self._results
        if results is None or results.summary is not None:
            return
        options = self._environment.parsed_options
        runner = self._environment.runner
        table = results.records.table()
        busy = runner.cpu_warning_emitted or runner.worker_cpu_warning_emitted
        lost = self.processes - len(results.done)
        facts = {
            "host": self._environment.host,
            "model": options.model or None,
            "started_at": results.began_at.isoformat(timespec="milliseconds"),
            "request_timeout_s": options.request_timeout_s,
            "problems": dict(results.problems.most_common(20)),
        }
        plan = self.plan if lost == 0 else self._interrupted_plan(results)
        made_by = generator(measured(table, plan), self.processes, lost, busy=busy)
        results.summary = summarize(table, plan, self._tenants, made_by, facts)
        click.echo("\n".join(result_lines(results.summary)))
        if options.summary:
            text = json.dumps(results.summary, indent=1) + "\n"
            Path(options.summary).write_text(text, encoding="utf-8")
        if options.records:
            np.savez_compressed(options.records, allow_pickle=False, **table)

    def _interrupted_plan(self, results: "_Results") -> Plan:
        elapsed_s = time.perf_counter() - results.began
        shortest_s = self.plan.warm_up_s + 1.0
        return replace(self.plan, duration_s=max(shortest_s, min(elapsed_s, self.plan.duration_s)))

    def _quit(self, **_: Any) -> None:
        """Conclude an interrupted run, and set the exit code by the thresholds."""
        self._conclude()
        if self._results is None or self._results.summary is None:
            return
        thresholds = thresholds_of(self._environment.parsed_options)
        problems = list(thresholds.exceeded(self._results.summary))
        if lost := self._results.summary["generator"]["lost_processes"]:
            problems.append(f"{lost} of {self.processes} processes did not finish the run.")
        for problem in problems:
            click.echo(f"FAILED: {problem}")
        if problems or thresholds.any():
            self._environment.process_exit_code = FAILED if problems else PASSED


class _Results:
    """What the processes of a run have reported."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.began_at = datetime.now(UTC)
        self.records = Records()
        self.problems: Counter[str] = Counter()
        self.sent: dict[int, int] = {}
        self.done: set[int] = set()
        self.summary: dict[str, Any] | None = None

    def take(self, report: dict[str, Any]) -> None:
        self.records.extend(report["rows"])
        self.problems.update(report["problems"])
        self.sent[report["index"]] = report["sent"]
        if report["done"]:
            self.done.add(report["index"])
