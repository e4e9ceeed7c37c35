"""The definition of a fault of the lab, and the places of the replicas that it can hit."""

from collections import Counter
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError

GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class Places:
    """Where the replicas are."""

    replicas: Mapping[str, str]
    """Addresses by the replica's id."""

    deployments: Mapping[str, str]
    """Deployments by the replica's id."""

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> "Places":
        return cls(
            {each["id"]: each["address"] for each in state["replicas"]},
            {each["id"]: each["deployment"] for each in state["replicas"]},
        )

    def shared(self) -> list[str]:
        """Return the deployments of which two replicas are on one node."""
        places = Counter((self.deployments[each], node) for each, node in self.replicas.items())
        return sorted({deployment for (deployment, _), number in places.items() if number > 1})

    def host_of(self, deployment: str) -> plan.Host:
        """Return a host with a replica of the deployment, or of a scorer for ``scorer``."""
        addresses = [
            self.replicas[each]
            for each, name in sorted(self.deployments.items())
            if name.startswith(deployment)
        ]
        return next(host for host in plan.NODES if host.address == addresses[0])

    def lost_on(self, host: plan.Host, deployment: str = "") -> set[str]:
        return {
            each
            for each, address in self.replicas.items()
            if address == host.address and self.deployments[each].startswith(deployment)
        }


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault did."""

    host: str
    """The host that it hit."""

    host_is_away: bool = False
    """Whether the host's own HAProxy cannot answer during the fault."""

    lost: Set[str] = frozenset()
    """Ids of the replicas that ended."""


Inject = Callable[[Lab, Places], Effect]


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    name: str
    inject: Inject
    undo: Callable[[Lab, Effect], None] | None = None
    hold_s: float = 0.0
    """Time from `inject` to `undo`; with 0, the fault is undone after the recovery."""

    kills_gateway: bool = False
    fails_database: bool = False
    prepare: Callable[[Lab, Places], None] | None = None
    """Prepares the lab for the fault, before the quiet time."""


def send_signal(lab: Lab, host: str, number: int, word: str = "") -> None:
    """Send a signal to the processes of a host that have ``word`` on their command lines.

    Raises: LabError when there is none.
    """
    found = lab.processes(host, word)
    for process in found:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    if not found:
        raise LabError(f"no process '{word}' on {host}")


def start_again(lab: Lab, effect: Effect) -> None:
    """Start the host of a fault again, as its supervisor would; end it first if it still runs."""
    host = plan.BY_NAME[effect.host]
    lab.hosts[host.name].end()
    lab.create_host(host)
    lab.save()
    lab.start_node(host)
