"""Faults of single processes: killed, frozen, out of memory."""

import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError, wait_for
from tests.chaos.lab.fault import GATEWAY, Effect, Inject, Places, send_signal

GATEWAY_PROCESS = "ServeReplica:rerank:gateway"
SCORER_PROCESS = ":scorer"
CGROUPS = (
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
    (Path("/sys/fs/cgroup"), "memory.max"),
)
"""Folders of memory cgroups of version 1 and 2, with the name of the limit."""

GROWTH_BYTES = 2**16
"""Memory that may be allocated in a new cgroup. What a process already has counts for another."""

ALLOCATE = 'echo $$ > "$0" && exec tail /dev/zero'
"""A shell command that enters a cgroup and allocates memory without a limit."""

OUT_OF_MEMORY_S = 30.0


def replica_killed(deployment: str, process: str) -> Inject:
    def inject(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        send_signal(lab, host.name, signal.SIGKILL, process)
        return Effect(host.name, lost=before.lost_on(host, deployment))

    return inject


def replica_frozen(deployment: str, process: str) -> Inject:
    def inject(lab: Lab, before: Places) -> Effect:
        host = before.host_of(deployment)
        send_signal(lab, host.name, signal.SIGSTOP, process)
        return Effect(host.name)

    return inject


def node_frozen(lab: Lab, before: Places) -> Effect:
    host = before.host_of("scorer")
    send_signal(lab, host.name, signal.SIGSTOP)
    return Effect(host.name, host_is_away=True)


def thaw(lab: Lab, effect: Effect) -> None:
    send_signal(lab, effect.host, signal.SIGCONT)


def controller_killed(lab: Lab, _: Places) -> Effect:
    send_signal(lab, plan.HEAD, signal.SIGKILL, "ServeController")
    return Effect(plan.HEAD)


def haproxy_killed(lab: Lab, before: Places) -> Effect:
    host = before.host_of("scorer")
    send_signal(lab, host.name, signal.SIGKILL, "/haproxy ")
    return Effect(host.name, host_is_away=True)


def gateway_out_of_memory(lab: Lab, before: Places) -> Effect:
    """Exceed the limit of a gateway's memory cgroup, so that the kernel kills its largest process.

    Another process allocates the memory, because a gateway may reuse what it has for long.
    """
    host = before.host_of(GATEWAY)
    (gateway,) = lab.processes(host.name, GATEWAY_PROCESS)
    folder, limit = _memory_cgroup()
    group = folder / f"rerank-lab-{gateway.pid}"
    group.mkdir()
    try:
        (group / limit).write_text(str(GROWTH_BYTES))
        members = group / "cgroup.procs"
        members.write_text(str(gateway.pid))
        with subprocess.Popen(["sh", "-c", ALLOCATE, members]) as other:
            try:
                wait_for(lambda: not gateway.is_running(), OUT_OF_MEMORY_S, "the gateway's end")
            finally:
                other.kill()
    finally:
        with suppress(ProcessLookupError):
            (folder / "cgroup.procs").write_text(str(gateway.pid))
        group.rmdir()
    return Effect(host.name, lost=before.lost_on(host, GATEWAY))


def _memory_cgroup() -> tuple[Path, str]:
    for folder, limit in CGROUPS:
        if any(folder.glob(f"*/{limit}")):
            return folder, limit
    raise LabError("this machine has no memory cgroups")
