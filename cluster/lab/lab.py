"""A lab: load it from its folder, use it, and remove it."""

import json
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from cluster.lab import databases, namespaces, plan, service
from cluster.lab.namespaces import Ancestor, LabError, wait_for
from cluster.lab.network import Network
from serve_app.private_files import private_file
from testkit.simulation import TOKENS_PER_S

STATE_FILE = "lab.json"
DEPLOY_TIMEOUT_S = 300.0
READY_TIMEOUT_S = 120.0
POLL_S = 1.0
MIB = 2**20
NAME_CHARACTERS = 120


@dataclass
class Lab:
    """A lab in a folder. `cluster.lab.start.up` creates it; `load` finds it again."""

    folder: Path
    in_user_namespace: bool
    token: str
    outer: Ancestor
    hosts: dict[str, Ancestor] = field(default_factory=dict)
    key: str = ""
    gpu_tokens_per_s: float | None = None
    """Speed of the simulated GPUs, if there are any."""

    up_s: float = 0.0
    """Time that `up` took."""

    @classmethod
    def load(cls, folder: Path) -> "Lab":
        """Raises: LabError when there is none in the folder."""
        try:
            state = json.loads((folder / STATE_FILE).read_text())
        except FileNotFoundError:
            raise LabError(f"There is no lab in '{folder}'.") from None
        hosts = {name: Ancestor(**each) for name, each in state.pop("hosts").items()}
        return cls(folder=folder, outer=Ancestor(**state.pop("outer")), hosts=hosts, **state)

    def save(self) -> None:
        path = self.folder / STATE_FILE
        private_file(path)
        state = {
            "in_user_namespace": self.in_user_namespace,
            "token": self.token,
            "outer": _saved(self.outer),
            "hosts": {name: _saved(host) for name, host in self.hosts.items()},
            "key": self.key,
            "gpu_tokens_per_s": self.gpu_tokens_per_s,
            "up_s": self.up_s,
        }
        path.write_text(json.dumps(state, indent=2) + "\n")

    @property
    def network(self) -> Network:
        return Network(self.outer, in_user_namespace=self.in_user_namespace)

    def is_running(self) -> bool:
        return self.outer.process() is not None

    def entering(self, host: str, kinds: Sequence[str] = namespaces.KINDS) -> list[str]:
        """Return the beginning of a command that runs in a host.

        Raises: LabError when the host does not run.
        """
        ancestor = self.hosts.get(host)
        if ancestor is None:
            raise LabError(f"There is no host '{host}'. The hosts: {', '.join(plan.BY_NAME)}.")
        if ancestor.process() is None:
            raise LabError(f"The host '{host}' does not run.")
        return namespaces.entering(ancestor, kinds, in_user_namespace=self.in_user_namespace)

    def run(
        self, host: str, command: Sequence[str], timeout_s: float = namespaces.COMMAND_TIMEOUT_S
    ) -> str:
        """Run a command in a host, with the variables of its Ray, and return its output.

        Raises: LabError with the last line of its error output.
        """
        return namespaces.run(
            [*self.entering(host), *service.with_ray_env(command)],
            env=self.environment(host),
            timeout_s=timeout_s,
            name=f"{host}: {shlex.join(command)[:NAME_CHARACTERS].splitlines()[0]}",
        )

    def spawn(
        self, host: str, command: Sequence[str], output: IO[bytes] | int
    ) -> "subprocess.Popen[bytes]":
        """Start a command in a host without waiting for it."""
        return subprocess.Popen(
            [*self.entering(host), *service.with_ray_env(command)],
            env=self.environment(host),
            stdin=subprocess.DEVNULL,
            stdout=output,
        )

    def environment(self, host: str) -> dict[str, str]:
        env = service.environment(self.folder, self.token)
        if self.gpu_tokens_per_s is not None:
            env[TOKENS_PER_S] = str(self.gpu_tokens_per_s)
        return service.head_environment(env) if host == plan.HEAD else env

    def create_host(self, host: plan.Host) -> None:
        """Create a host that does not run yet, with its network and firewall, without programs."""
        folder = self.folder / "hosts" / host.name
        folder.mkdir(parents=True, exist_ok=True)
        ancestor = namespaces.create_host(
            self.outer,
            host.name,
            folder,
            [*service.code_folders(), self.folder],
            in_user_namespace=self.in_user_namespace,
        )
        self.hosts[host.name] = ancestor
        self.network.connect(host, ancestor)
        if host.is_node:
            self.network.close(ancestor)

    def processes(self, host: str, word: str) -> list[psutil.Process]:
        """Return the processes of a host that have ``word`` on their command lines."""
        found = []
        for process in self.hosts[host].descendants():
            with suppress(psutil.NoSuchProcess):
                if word in " ".join(process.cmdline()):
                    found.append(process)
        return found

    @property
    def postgres(self) -> databases.Postgres:
        return databases.Postgres(in_user_namespace=self.in_user_namespace)

    def start_postgres(self) -> None:
        self.run(plan.DATABASE, self.postgres.start())

    def start_redis(self) -> None:
        self.run(plan.REDIS, ["bash", "-c", databases.redis_script()])

    def start_node(self, host: plan.Host, prefix: Sequence[str] = ()) -> None:
        """Start Ray on a node, with ``prefix`` before the command; wait until it has joined."""
        self.run(host.name, [*prefix, str(service.BIN / "ray"), *plan.ray_start(host)])

    def create_ledger(self) -> None:
        """Create the ledger and the first key."""
        script = ["bash", "-c", service.ledger_script()]
        self.key = service.key_in(self.run(plan.CLIENT, script))

    def deploy(self, config: Path = service.PRODUCTION) -> None:
        """Deploy a Serve config file, without waiting for its replicas."""
        self.run(plan.HEAD, [str(service.BIN / "serve"), "deploy", str(config)])

    def fetch(self, url: str, token: str | None = None, host: str = plan.CLIENT) -> tuple[int, Any]:
        """Send a GET from a host; return the status and the JSON, or (0, None)."""
        return service.fetched(self.run(host, service.fetch(url, token)))

    def service_state(self) -> dict[str, Any]:
        """Return the state of the application; see `service.state_of`."""
        url = f"{service.DASHBOARD}/api/serve/applications/"
        status, answer = self.fetch(url, self.token, plan.HEAD)
        return service.state_of(answer if status == 200 else {"applications": {}})

    def proxies(self) -> list[plan.Host]:
        """Return the hosts with an HAProxy."""
        addresses = self.service_state()["proxies"]
        return [host for host in self.nodes() if host.address in addresses]

    def nodes(self) -> list[plan.Host]:
        """Return the nodes of the Ray cluster."""
        return [host for host in plan.NODES if host.name in self.hosts]

    def is_ready(self) -> bool:
        """Return whether the application runs, and answers through every HAProxy."""
        state = self.service_state()
        urls = [host.url for host in self.nodes() if host.address in state["proxies"]]
        running: bool = state["application"] == "RUNNING"
        return running and bool(urls) and all(self.fetch(f"{url}/ready")[0] == 200 for url in urls)

    def wait_until_ready(self) -> None:
        """Raises: LabError when the service does not become ready."""

        def running() -> bool:
            time.sleep(POLL_S)
            state = self.service_state()
            if state["application"] == "DEPLOY_FAILED":
                raise LabError(f"The application did not start: {state['message']}")
            return bool(state["application"] == "RUNNING")

        wait_for(running, DEPLOY_TIMEOUT_S, "the start of the application")
        wait_for(self.is_ready, READY_TIMEOUT_S, "an answer through every HAProxy")

    def status(self) -> dict[str, Any]:
        """Describe hosts, replicas and HAProxies for `python -m cluster.lab status --json`."""
        hosts = []
        for host in plan.HOSTS:
            if host.name not in self.hosts:
                continue
            found = self.hosts[host.name].descendants()
            hosts.append(
                {
                    "name": host.name,
                    "address": host.address,
                    "running": bool(found),
                    "processes": len(found),
                    "memory_mib": sum(map(_memory, found)) // MIB,
                }
            )
        return {
            "running": self.is_running(),
            "up_s": self.up_s,
            "memory_mib": sum(int(str(host["memory_mib"])) for host in hosts),
            "key": self.key,
            "hosts": hosts,
            **(self.service_state() if self.is_running() else {}),
        }

    def end(self) -> None:
        """End all processes of the lab."""
        for ancestor in (self.outer, *self.hosts.values()):
            ancestor.end()

    def down(self) -> None:
        """End all processes of the lab, and remove its folder."""
        self.end()
        shutil.rmtree(self.folder)


def _saved(ancestor: Ancestor) -> dict[str, float]:
    return {"pid": ancestor.pid, "started_s": ancestor.started_s}


def _memory(process: psutil.Process) -> int:
    """Return the memory of a process in bytes, with its proportional part of shared memory."""
    with suppress(psutil.Error):
        return int(process.memory_full_info().pss)
    return 0
