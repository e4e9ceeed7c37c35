"""Faults of whole nodes: killed, without power, cut off, taken back by the cloud."""

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.service import BIN
from tests.chaos.lab.fault import Effect, Inject, Places


def node_killed(deployment: str) -> Inject:
    def inject(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        lab.hosts[host.name].end()
        return Effect(host.name, host_is_away=True, lost=before.lost_on(host))

    return inject


def node_unpowered(deployment: str) -> Inject:
    def inject(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        lab.network.cut(host)
        lab.hosts[host.name].end()
        return Effect(host.name, host_is_away=True, lost=before.lost_on(host))

    return inject


def head_killed(lab: Lab, before: Places) -> Effect:
    lab.hosts[plan.HEAD].end()
    return Effect(plan.HEAD, host_is_away=True, lost=before.lost_on(plan.BY_NAME[plan.HEAD]))


def node_cut_off(deployment: str, *, for_good: bool = False) -> Inject:
    """Return a fault that drops all packets of a node, while its processes keep running."""

    def inject(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        lab.network.cut(host)
        lost = before.lost_on(host) if for_good else set()
        return Effect(host.name, host_is_away=True, lost=lost)

    return inject


def heal(lab: Lab, effect: Effect) -> None:
    lab.network.heal(plan.BY_NAME[effect.host])


def node_far_away(deployment: str) -> Inject:
    """Return a fault after which the node's cable adds 200 ms to a round trip and loses 5 %."""

    def inject(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        lab.network.spoil(host, delay_s=0.1, loss=0.05)
        return Effect(host.name)

    return inject


def repair(lab: Lab, effect: Effect) -> None:
    lab.network.repair(plan.BY_NAME[effect.host])


def node_drained(deployment: str, notice_s: int) -> Inject:
    """Return a fault in which Ray learns that the node ends in ``notice_s``."""

    def inject(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        command = [str(BIN / "ray"), "drain-node", "--reason=DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--reason-message=spot", f"--deadline-remaining-seconds={notice_s}"]
        lab.run(host.name, command)
        return Effect(host.name, lost=before.lost_on(host))

    return inject
