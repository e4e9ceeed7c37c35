"""The service of a case, with one part slowed down."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ledger import throughput
from benchmarks.planner.cases import SLOW_GATEWAY_SHARE, SLOW_WRITE_S, Case
from benchmarks.planner.throttle import limited
from serve_app.deployments.local_ray import free_port
from serve_app.domain.model import Caller
from serve_app.ledger.db.schema import migrate
from serve_app.planning.simulation import DATABASE, GATEWAYS
from testkit import postgres
from testkit.service import ROOT, Service, deployment, model, serve_config
from testkit.simulation import SIMULATED_SCORER, TOKENS_PER_S

GOALS = {"delay_s": 1, "up_after_s": 1.5, "down_after_s": 8, "zero_after_s": 600}
POLICY = "serve_app.deployments.autoscaling:BacklogPolicy"

SLOW_WRITES = f"""
CREATE FUNCTION slow_write() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep({SLOW_WRITE_S}); RETURN NEW; END $$;
CREATE TRIGGER slow_reservation BEFORE INSERT ON reservations
FOR EACH ROW EXECUTE FUNCTION slow_write();
CREATE TRIGGER slow_charge BEFORE INSERT ON charges FOR EACH ROW EXECUTE FUNCTION slow_write();
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A running service of a case."""

    service: Service
    database_url: str | None
    """A PostgreSQL with slow writes, if the case has one."""

    callers: list[Caller]
    """Tenants for measuring that database."""


@contextmanager
def running(case: Case) -> Iterator[Running]:
    """Start the service of a case, and stop it after the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {"PYTHONPATH": str(ROOT), TOKENS_PER_S: str(case.gpu_tokens_per_s)}
        url = None
        if case.throttled == DATABASE:
            server = stack.enter_context(postgres.running(durable=True))
            url = environment["RERANK_DATABASE_URL"] = server.url()
            migrate(url)
            server.execute(SLOW_WRITES)
        service = Service.start(folder, config(case), free_port(), **environment)
        stack.callback(service.stop)
        if case.throttled == GATEWAYS:
            stack.enter_context(limited(service.replicas("rerank"), SLOW_GATEWAY_SHARE))
        yield Running(service, url, [] if url is None else throughput.prepare(url))


def config(case: Case) -> dict[str, Any]:
    """Return the Serve config file of a case."""
    scorers = deployment(case.scorers, max_ongoing_requests=2_048)
    if case.autoscaled:
        del scorers["num_replicas"]
        scorers["autoscaling_config"] = {
            "min_replicas": 1,
            "max_replicas": case.scorers,
            "metrics_interval_s": 1,
            "look_back_period_s": 5,
            "upscale_delay_s": 0,
            "downscale_delay_s": 0,
        }
    found = serve_config(
        [model("embedded", "embedded", scorers)], deployment(1, max_ongoing_requests=512)
    )
    models = found["applications"][1]
    models["import_path"] = SIMULATED_SCORER
    if case.autoscaled:
        models["autoscaling_policy"] = {"policy_function": POLICY, "policy_kwargs": GOALS}
    return found
