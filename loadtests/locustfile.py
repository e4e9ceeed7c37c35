"""Load for a running service: an open loop, in which requests are sent on schedule.

    rerank-serve loadtest run -H http://127.0.0.1:8000 --rate 20 -t 60s

runs this file with Locust; `locust -f loadtests/locustfile.py` does the same with Locust's own
page. `README.md` describes the options.
"""

from typing import Any

from locust import LoadTestShape, events
from locust.env import Environment

from loadtests.options import add_options
from loadtests.run import Run
from loadtests.sender import Sender

__all__ = ["OneSenderPerProcess", "Sender"]

events.init_command_line_parser.add_listener(add_options)


@events.init.add_listener
def prepare(environment: Environment, **_: Any) -> None:
    environment.rerank = Run(environment)


class OneSenderPerProcess(LoadTestShape):
    """Runs one `Sender` in each process, until all processes are done."""

    use_common_options = True  # --run-time is the time of the schedule

    def tick(self) -> tuple[int, float] | None:
        run = self.runner.environment.rerank
        if run.is_over():
            return None
        processes = max(1, self.runner.worker_count)
        return processes, processes
