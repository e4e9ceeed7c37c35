"""The service of a case in the lab, with one part slowed down."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
import yaml
from sqlalchemy import create_engine

from benchmarks.ledger import throughput
from benchmarks.planner.cases import SLOW_GATEWAY_SHARE, SLOW_WRITE_S, Case
from benchmarks.planner.throttle import limited
from cluster.lab import plan, service
from cluster.lab.lab import Lab
from serve_app.domain.model import Caller
from serve_app.planning.simulation import DATABASE, GATEWAYS

GOALS = {"delay_s": 1, "up_after_s": 1.5, "down_after_s": 8, "zero_after_s": 600}
MODEL = "embedded"
CHECKPOINT = {"source": MODEL}

SLOW_WRITES = f"""
CREATE FUNCTION slow_write() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep({SLOW_WRITE_S}); RETURN NEW; END $$;
CREATE TRIGGER slow_reservation BEFORE INSERT ON reservations
FOR EACH ROW EXECUTE FUNCTION slow_write();
CREATE TRIGGER slow_charge BEFORE INSERT ON charges FOR EACH ROW EXECUTE FUNCTION slow_write();
"""


@dataclass(frozen=True, slots=True)
class Running:
    """The running service of a case, as its clients and its operator see it."""

    lab: Lab
    address: str
    """URL of the HAProxy on the gateway's node."""

    callers: list[Caller]
    """Tenants for measuring the database."""

    @property
    def key(self) -> str:
        return self.lab.key

    @property
    def database_url(self) -> str:
        return plan.database_url()

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.address, headers=headers, timeout=60)

    def replicas(self, application: str) -> list[psutil.Process]:
        """Return the processes of ``rerank``, the gateways, or of a model's scorers."""
        return [
            process
            for host in self.lab.nodes()
            for process in self.lab.processes(host.name, f"ServeReplica:{application}:")
        ]


@contextmanager
def slowed(case: Case, lab: Lab) -> Iterator[Running]:
    """Slow down a part of the service during the block. Call it in the client's network."""
    (gateway,) = (host for host in lab.nodes() if lab.processes(host.name, "ServeReplica:rerank:"))
    running = Running(lab, gateway.url, throughput.prepare(plan.database_url()))
    with ExitStack() as stack:
        if case.throttled == DATABASE:
            with create_engine(running.database_url).begin() as connection:
                connection.exec_driver_sql(SLOW_WRITES)
        if case.throttled == GATEWAYS:
            stack.enter_context(limited(running.replicas("rerank"), SLOW_GATEWAY_SHARE))
        yield running


def config(case: Case) -> dict[str, Any]:
    """Return cluster/production.yaml with one gateway and the scorers of a case."""
    found: dict[str, Any] = yaml.safe_load(service.PRODUCTION.read_text())
    models, gateways = found["applications"]
    models |= {"name": MODEL, "args": {"checkpoint": CHECKPOINT}}
    models["autoscaling_policy"]["policy_kwargs"] = GOALS
    (scorers,) = models["deployments"]
    if case.autoscaled:
        scorers["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": case.scorers}
    else:
        _fixed(scorers, case.scorers)
        del models["autoscaling_policy"]
    (gateway,) = gateways["deployments"]
    _fixed(gateway, 1)
    price = gateway["user_config"]["models"][0]["price_micro_dollars_per_document"]
    model = {"id": MODEL, "checkpoint": CHECKPOINT, "price_micro_dollars_per_document": price}
    gateway["user_config"]["models"] = [model]
    return found


def _fixed(deployment: dict[str, Any], replicas: int) -> None:
    del deployment["autoscaling_config"]
    deployment["num_replicas"] = replicas
