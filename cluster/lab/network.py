"""Connect hosts, and cut them off without closing connections, as a pulled cable does."""

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from cluster.lab import plan
from cluster.lab.namespaces import Ancestor, LabError, entering, run
from cluster.lab.plan import Host

CABLE = Path(__file__).with_name("cable.py")
FIREWALL = Path(__file__).parents[1] / "firewall.nft"
SYSTEM_PROGRAMS = "/usr/sbin:/sbin"


class Network:
    """The bridge in the outer network namespace, and the cables to the hosts."""

    def __init__(self, outer: Ancestor, *, in_user_namespace: bool) -> None:
        self._user = in_user_namespace
        self._outer = outer

    def create(self) -> None:
        self._ip(self._outer, plan.network_script())

    def connect(self, host: Host, ancestor: Ancestor) -> None:
        """Give a new host its cable and its address."""
        self._remove(host.name)
        # The outer process namespace is not entered, because `ancestor.pid` is an id outside of it.
        self._ip(self._outer, plan.cable_script(host, ancestor.pid))
        self._ip(ancestor, plan.address_script(host))

    def close(self, ancestor: Ancestor) -> None:
        """Load the firewall of a node: only the other nodes reach more than its API.

        Raises: LabError when nftables is not installed.
        """
        path = os.pathsep.join([os.environ.get("PATH", ""), SYSTEM_PROGRAMS])
        nft = shutil.which("nft", path=path)
        if nft is None:
            raise LabError("The lab needs nft, from the package nftables.")
        nodes = ", ".join(node.address for node in plan.NODES)
        command = entering(ancestor, ["--net"], in_user_namespace=self._user)
        run([*command, nft, "--define", f"cluster={{ {nodes} }}", "--file", str(FIREWALL)])

    def cut(self, host: Host) -> None:
        """Drop all packets of the host. No connection is closed."""
        self._ip(self._outer, [f"link set {host.name} down"])

    def heal(self, host: Host) -> None:
        self._ip(self._outer, [f"link set {host.name} up"])

    def spoil(self, host: Host, delay_s: float, loss: float) -> None:
        """Delay all packets of the host in both directions, and lose a share of them."""
        self._ip(self._outer, plan.bad_cable_script(host))
        cable = [sys.executable, str(CABLE), host.name, f"{host.name}-far", str(delay_s), str(loss)]
        enter = entering(self._outer, in_user_namespace=self._user)
        run([*enter, "bash", "-c", '"$@" &> /dev/null &', "cable", *cable])

    def repair(self, host: Host) -> None:
        """Undo `spoil`."""
        self._ip(self._outer, plan.good_cable_script(host))

    def take_over(self, ancestor: Ancestor, host: Host) -> None:
        """Give the host of ``ancestor`` the addresses of a host that is cut off."""
        self._ip(ancestor, plan.takeover_script(host))

    def rename(self, old: Host, new: Host) -> None:
        """Give the cable of ``old`` the name of ``new``, a host that has ended."""
        self._remove(new.name)
        names = [f"link set {old.name} down", f"link set {old.name} name {new.name}"]
        self._ip(self._outer, [*names, f"link set {new.name} up"])

    def _remove(self, name: str) -> None:
        """Remove a cable. It outlives its host while the host's connections are unfinished."""
        if self._has(name):
            with suppress(LabError):  # It may disappear by itself at this moment.
                self._ip(self._outer, [f"link delete {name}"])

    def _has(self, name: str) -> bool:
        command = entering(self._outer, ["--net"], in_user_namespace=self._user)
        links = json.loads(run([*command, "ip", "-json", "link"]))
        return any(link.get("ifname") == name for link in links)

    def _ip(self, where: Ancestor, script: list[str]) -> None:
        command = entering(where, ["--net"], in_user_namespace=self._user)
        run([*command, "ip", "-batch", "-"], text="\n".join([*script, ""]))
