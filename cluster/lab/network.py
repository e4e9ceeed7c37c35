"""Connect hosts, and cut them off without a sign to either side, as a pulled cable does."""

import json
from contextlib import suppress

from cluster.lab import plan
from cluster.lab.namespaces import Ancestor, LabError, entering, run
from cluster.lab.plan import Host


class Network:
    """The bridge in the outer network namespace, and the cables to the hosts."""

    def __init__(self, outer: Ancestor, *, in_user_namespace: bool) -> None:
        self._user = in_user_namespace
        self._outer = outer

    def create(self) -> None:
        self._ip(self._outer, plan.network_script())

    def connect(self, host: Host, ancestor: Ancestor) -> None:
        """Give a new host its cable and its address."""
        # The cable to an earlier host of this name stays while that has unfinished connections.
        if self._has(host.name):
            with suppress(LabError):  # It may disappear by itself at this moment.
                self._ip(self._outer, [f"link delete {host.name}"])
        # Only the network of the outer namespaces is entered: here, process ids are this program's.
        self._ip(self._outer, plan.cable_script(host, ancestor.pid))
        self._ip(ancestor, plan.address_script(host))

    def cut(self, host: Host) -> None:
        """Drop all packets of the host. No connection is closed."""
        self._ip(self._outer, [f"link set {host.name} down"])

    def heal(self, host: Host) -> None:
        self._ip(self._outer, [f"link set {host.name} up"])

    def _has(self, name: str) -> bool:
        command = entering(self._outer, ["--net"], in_user_namespace=self._user)
        links = json.loads(run([*command, "ip", "-json", "link"]))
        return any(link.get("ifname") == name for link in links)

    def _ip(self, where: Ancestor, script: list[str]) -> None:
        command = entering(where, ["--net"], in_user_namespace=self._user)
        run([*command, "ip", "-batch", "-"], text="\n".join([*script, ""]))
