"""The faults of the lab, and how each is inflicted and undone."""

import signal
from collections import Counter
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import yaml

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError
from cluster.lab.service import PRODUCTION

GATEWAY = "gateway"
GATEWAY_PROCESS = "ServeReplica:rerank:gateway"
SCORER_PROCESS = "ServeReplica:ms-marco-MiniLM-L12-v2:scorer"


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
    """Whether the host's own HAProxy cannot answer meanwhile."""

    lost: Set[str] = frozenset()
    """Ids of the replicas that ended."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault."""

    name: str
    inflict: Callable[[Lab, Places], Effect]
    undo: Callable[[Lab, Effect], None] | None = None
    hold_s: float = 0.0
    """Time from `inflict` to `undo`; 0 means that it is undone at the end, after the recovery."""

    kills_gateway: bool = False
    fails_database: bool = False


def _signal(lab: Lab, host: str, word: str, number: int) -> None:
    """Send a signal to the processes of a host that have ``word`` on their command lines.

    Raises: LabError when there is none.
    """
    found = 0
    for process in lab.hosts[host].descendants():
        with suppress(psutil.NoSuchProcess):
            if word in " ".join(process.cmdline()):
                process.send_signal(number)
                found += 1
    if not found:
        raise LabError(f"no process '{word}' on {host}")


def _replica_killed(deployment: str, process: str) -> Callable[[Lab, Places], Effect]:
    def inflict(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        _signal(lab, host.name, process, signal.SIGKILL)
        return Effect(host.name, lost=before.lost_on(host, deployment))

    return inflict


def _replica_frozen(deployment: str, process: str) -> Callable[[Lab, Places], Effect]:
    def inflict(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        _signal(lab, host.name, process, signal.SIGSTOP)
        return Effect(host.name)

    return inflict


def _signal_all(lab: Lab, host: str, number: signal.Signals) -> None:
    """Send a signal to every process of a host."""
    for process in lab.hosts[host].descendants():
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _thaw(lab: Lab, effect: Effect) -> None:
    _signal_all(lab, effect.host, signal.SIGCONT)


def _node_frozen(lab: Lab, before: Places) -> Effect:
    host = before.host_of("scorer")
    _signal_all(lab, host.name, signal.SIGSTOP)
    return Effect(host.name, host_is_away=True)


def _node_killed(deployment: str) -> Callable[[Lab, Places], Effect]:
    def inflict(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        lab.hosts[host.name].end()
        return Effect(host.name, host_is_away=True, lost=before.lost_on(host))

    return inflict


def _node_unpowered(deployment: str) -> Callable[[Lab, Places], Effect]:
    def inflict(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        lab.network.cut(host)
        lab.hosts[host.name].end()
        return Effect(host.name, host_is_away=True, lost=before.lost_on(host))

    return inflict


def _node_cut_off(deployment: str) -> Callable[[Lab, Places], Effect]:
    def inflict(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        lab.network.cut(host)
        return Effect(host.name, host_is_away=True)

    return inflict


def _heal(lab: Lab, effect: Effect) -> None:
    lab.network.heal(plan.BY_NAME[effect.host])


def _start_again(lab: Lab, effect: Effect) -> None:
    host = plan.BY_NAME[effect.host]
    lab.create_host(host)
    lab.save()
    lab.start_node(host)


def _controller_killed(lab: Lab, _: Places) -> Effect:
    _signal(lab, plan.HEAD, "ServeController", signal.SIGKILL)
    return Effect(plan.HEAD)


def _head_killed(lab: Lab, before: Places) -> Effect:
    lab.hosts[plan.HEAD].end()
    return Effect(plan.HEAD, host_is_away=True, lost=before.lost_on(plan.BY_NAME[plan.HEAD]))


def _haproxy_killed(lab: Lab, before: Places) -> Effect:
    host = before.host_of("scorer")
    _signal(lab, host.name, "/haproxy ", signal.SIGKILL)
    return Effect(host.name, host_is_away=True)


def _database_killed(lab: Lab, _: Places) -> Effect:
    _signal(lab, plan.DATABASE, "postgres", signal.SIGKILL)
    return Effect(plan.DATABASE)


def _database_started(lab: Lab, _: Effect) -> None:
    lab.start_postgres()


def _all_replaced(lab: Lab, before: Places) -> Effect:
    """Deploy the production file with another value under ``runtime_env``."""
    config = yaml.safe_load(PRODUCTION.read_text())
    for application in config["applications"]:
        application["runtime_env"] = {"env_vars": {"RELEASE": "next"}}
    path = lab.folder / "next.yaml"
    path.write_text(yaml.safe_dump(config))
    lab.deploy(path)
    return Effect(plan.HEAD, lost=set(before.replicas))


FAULTS = (
    Fault("scorer killed", _replica_killed("scorer", SCORER_PROCESS)),
    Fault("gateway killed", _replica_killed(GATEWAY, GATEWAY_PROCESS), kills_gateway=True),
    Fault("scorer node killed for 20 s", _node_killed("scorer"), _start_again, 20),
    Fault(
        "gateway node killed for 20 s", _node_killed(GATEWAY), _start_again, 20, kills_gateway=True
    ),
    Fault("controller killed", _controller_killed),
    Fault("head killed for 10 s", _head_killed, _start_again, 10),
    Fault("head killed for 90 s", _head_killed, _start_again, 90),
    Fault("scorer node without power for 30 s", _node_unpowered("scorer"), _start_again, 30),
    Fault(
        "gateway node without power for 30 s",
        _node_unpowered(GATEWAY),
        _start_again,
        30,
        kills_gateway=True,
    ),
    Fault("scorer frozen for 30 s", _replica_frozen("scorer", SCORER_PROCESS), _thaw, 30),
    Fault("gateway frozen for 30 s", _replica_frozen(GATEWAY, GATEWAY_PROCESS), _thaw, 30),
    Fault("scorer node frozen for 30 s", _node_frozen, _thaw, 30),
    Fault("scorer node cut off for 20 s", _node_cut_off("scorer"), _heal, 20),
    Fault("gateway node cut off for 20 s", _node_cut_off(GATEWAY), _heal, 20),
    Fault("all replicas replaced", _all_replaced),
    Fault("HAProxy killed", _haproxy_killed),
    Fault("database killed for 5 s", _database_killed, _database_started, 5, fails_database=True),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
