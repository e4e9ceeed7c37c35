"""The hosts of the lab, their addresses and their programs. Nothing here runs anything."""

from collections.abc import Mapping
from dataclasses import dataclass

SWITCH = "switch"
"""The bridge that connects the hosts. It is in the outer network namespace."""

NETWORK = "198.18.0"
"""First three numbers of all addresses, which are reserved for tests of networks (RFC 2544)."""

PREFIX_BITS = 24
GPU_TYPE = "V100"
HEAD, DATABASE, REDIS, CLIENT = "head", "database", "redis", "client"
STANDBY = "standby"
GCS_PORT, POSTGRES_PORT, REDIS_PORT, HTTP_PORT = 6379, 5432, 6379, 8000

OBJECT_STORE_BYTES = 100 * 2**20
"""Portions do not use the object store; Ray requires at least 75 MiB."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host."""

    name: str
    number: int
    """Last number of the address."""

    cpus: int | None = None
    """CPUs that Ray may assign, or ``None`` for a host without Ray. They are not real cores."""

    gpus: int = 0

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def mac(self) -> str:
        """Hardware address, the same after a restart: other hosts remember it for a while."""
        return f"02:00:00:00:00:{self.number:02x}"

    @property
    def is_node(self) -> bool:
        """Whether the host is a node of the Ray cluster."""
        return self.cpus is not None

    @property
    def url(self) -> str:
        """URL of the host's HAProxy, which runs on the head and on nodes with replicas."""
        return f"http://{self.address}:{HTTP_PORT}"


HOSTS = (
    Host(HEAD, 10, cpus=0),
    Host("cpu-1", 21, cpus=4),
    Host("cpu-2", 22, cpus=4),
    Host("gpu-1", 31, cpus=2, gpus=1),
    Host("gpu-2", 32, cpus=2, gpus=1),
    Host("gpu-3", 33, cpus=2, gpus=1),
    Host("gpu-4", 34, cpus=2, gpus=1),
    Host(DATABASE, 41),
    Host(REDIS, 42),
    Host(CLIENT, 51),
)
"""Each CPU node has CPUs for two gateways, of which cluster/production.yaml allows one. Each GPU
node has room for one scorer. By default, `GPU_NODES` of the GPU nodes run."""

GPU_NODES = 3

STANDBY_HOST = Host(STANDBY, 43)
"""The standby of the database, which only `cluster.lab.failover` creates."""

BY_NAME: Mapping[str, Host] = {host.name: host for host in HOSTS}
NODES = tuple(host for host in HOSTS if host.is_node)


def hosts(gpu_nodes: int) -> list[Host]:
    """Return the hosts of a lab with ``gpu_nodes`` GPU nodes."""
    gpus = [host for host in HOSTS if host.gpus]
    return [host for host in HOSTS if host not in gpus[gpu_nodes:]]


def database_url() -> str:
    return f"postgresql+psycopg://rerank@{BY_NAME[DATABASE].address}:{POSTGRES_PORT}/postgres"


def redis_address() -> str:
    return f"{BY_NAME[REDIS].address}:{REDIS_PORT}"


def network_script() -> list[str]:
    """Return the commands for ``ip -batch`` that create the bridge."""
    return [f"link add {SWITCH} type bridge", f"link set {SWITCH} up", "link set lo up"]


def cable_script(host: Host, process: int) -> list[str]:
    """Return the commands for ``ip -batch`` that connect the namespace of ``process``.

    The cable has the name of the host at the bridge, and ``eth0`` in the host.
    """
    return [
        f"link add {host.name} type veth peer name eth0 address {host.mac} netns {process}",
        f"link set {host.name} master {SWITCH}",
        f"link set {host.name} up",
    ]


def address_script(host: Host) -> list[str]:
    """Return the commands for ``ip -batch`` inside the host."""
    return [
        "link set lo up",
        f"address add {host.address}/{PREFIX_BITS} dev eth0",
        "link set eth0 up",
    ]


def bad_cable_script(host: Host) -> list[str]:
    """Return the commands for ``ip -batch`` that take a host's cable out of the bridge.

    They connect one end of a new cable to the bridge. The name of its other end is that of the host
    plus ``-far``. `cluster.lab.cable` forwards frames between this end and the host's cable.
    """
    near, far = f"{host.name}-near", f"{host.name}-far"
    return [
        f"link set {host.name} nomaster",
        f"link add {near} type veth peer name {far}",
        f"link set {near} master {SWITCH}",
        f"link set {near} up",
        f"link set {far} up",
    ]


def good_cable_script(host: Host) -> list[str]:
    """Return the commands for ``ip -batch`` that undo `bad_cable_script`."""
    return [f"link delete {host.name}-far", f"link set {host.name} master {SWITCH}"]


def takeover_script(host: Host) -> list[str]:
    """Return the commands for ``ip -batch`` that give a host the addresses of another one.

    The hardware address moves, too, as with VRRP, so that the ARP caches of other hosts stay right.
    """
    return [
        f"link set eth0 address {host.mac}",
        f"address add {host.address}/{PREFIX_BITS} dev eth0",
    ]


def ray_start(host: Host) -> list[str]:
    """Return the arguments of ``ray`` that start Ray on the host.

    Raises: ValueError when the host is not a node.
    """
    if host.cpus is None:
        raise ValueError(f"{host.name} is not a node of Ray")
    where = (
        ["--head", f"--port={GCS_PORT}", "--dashboard-host=127.0.0.1"]
        if host.name == HEAD
        else [f"--address={BY_NAME[HEAD].address}:{GCS_PORT}"]
    )
    gpu = [f"--num-gpus={host.gpus}", f'--resources={{"accelerator_type:{GPU_TYPE}": 1}}']
    label = [f"--labels=ray.io/accelerator-type={GPU_TYPE}"]
    return [
        *("start", *where, f"--node-ip-address={host.address}", f"--num-cpus={host.cpus}"),
        *([*gpu, *label] if host.gpus else ["--num-gpus=0"]),
        *(f"--object-store-memory={OBJECT_STORE_BYTES}", "--metrics-export-port=8080"),
        *("--include-log-monitor=false", "--disable-usage-stats"),
    ]
