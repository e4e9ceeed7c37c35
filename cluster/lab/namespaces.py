"""Create hosts as namespaces, run programs in them, and end them.

Root creates the namespaces directly. Other users create them inside a user namespace of their own,
if the system allows that. The programs ``unshare``, ``nsenter``, ``mount`` and ``ip`` do the work.
"""

import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

START_TIMEOUT_S = 60.0
END_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 180.0
POLL_S = 0.05

KINDS = ("--mount", "--uts", "--ipc", "--net", "--pid")
USER = ("--user", "--preserve-credentials")

# As the first process of its namespace, bash also reaps processes that lost their parent.
STAY = "while :; do sleep 86400 & wait $!; done"


class LabError(Exception):
    """The lab cannot do what was asked; the message has one line."""


class NoNamespaces(LabError):
    """The system does not allow this user to create namespaces."""


@dataclass(frozen=True, slots=True)
class Ancestor:
    """The first process of a set of namespaces."""

    pid: int
    started_s: float
    """Its start time. Another process may get the same id later."""

    launcher: "subprocess.Popen[bytes] | None" = field(default=None, compare=False, repr=False)
    """The child process of this program that started it, if any. It ends with the first process."""

    @classmethod
    def of(
        cls, process: psutil.Process, launcher: "subprocess.Popen[bytes] | None" = None
    ) -> "Ancestor":
        return cls(process.pid, process.create_time(), launcher)

    def process(self) -> psutil.Process | None:
        """Return the running process, or ``None`` once it has ended."""
        try:
            process = psutil.Process(self.pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return None if ended or process.create_time() != self.started_s else process
        except psutil.NoSuchProcess:
            return None

    def descendants(self) -> list[psutil.Process]:
        """Return the processes of its namespaces, except those started by `run` and `spawn`."""
        process = self.process()
        if process is None:
            return []
        try:
            return process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def end(self) -> None:
        """Kill the process. The kernel then kills all others in its namespaces."""
        if (process := self.process()) is not None:
            process.kill()
            wait_for(lambda: self.process() is None, END_TIMEOUT_S, "the end of a host")
        if self.launcher is not None:
            self.launcher.wait(END_TIMEOUT_S)


def needs_user_namespace() -> bool:
    """Return whether this user can create namespaces only inside a user namespace.

    Raises: NoNamespaces when even that is forbidden.
    """
    kinds = ("--mount", "--net", "--pid", "--fork")
    for in_user_namespace in (False, True):
        user = ("--user", "--map-root-user") if in_user_namespace else ()
        try:
            done = subprocess.run(  # the system's programs  # nosec B607
                ["unshare", *user, *kinds, "ip", "link"],
                capture_output=True,
                text=True,
                check=False,  # Its error output says more than its status.
                timeout=START_TIMEOUT_S,
            )
        except OSError as error:
            raise NoNamespaces(f"The lab needs unshare and ip: {error}.") from None
        if done.returncode == 0:
            return in_user_namespace
    reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    raise NoNamespaces(f"The lab needs root or user namespaces, and this system has none: {reason}")


def create_outer(folder: Path, *, in_user_namespace: bool) -> Ancestor:
    """Create the outer namespaces, which contain all hosts. Raises: LabError."""
    user = ("--user", "--map-root-user") if in_user_namespace else ()
    ready = folder / "ready"
    script = f"touch {shlex.quote(str(ready))}; {STAY}"
    unshare = ["unshare", *user, *KINDS, "--fork", "--kill-child", "--mount-proc"]
    return _start([*unshare, "bash", "-c", script], folder, ready, depth=1)


def create_host(
    outer: Ancestor,
    name: str,
    folder: Path,
    visible: Sequence[Path],
    *,
    in_user_namespace: bool,
) -> Ancestor:
    """Create a host inside ``outer``, without network.

    Its ``/tmp`` is ``folder/tmp``. It sees everything else as the machine does, including the files
    in ``visible`` if they are in the machine's ``/tmp``. Raises: LabError.
    """
    temporary, ready = folder / "tmp", folder / "ready"
    temporary.mkdir(parents=True, exist_ok=True)
    temporary.chmod(0o1777)
    ready.unlink(missing_ok=True)
    unshare = ["unshare", *KINDS, "--fork", "--kill-child", "--mount-proc"]
    script = "\n".join(_host_script(name, temporary, ready, visible))
    command = [*entering(outer, in_user_namespace=in_user_namespace), *unshare]
    return _start([*command, "bash", "-c", script], folder, ready, depth=2)


def _host_script(name: str, temporary: Path, ready: Path, visible: Sequence[Path]) -> Iterator[str]:
    yield "set -e"
    yield "mount -t tmpfs -o mode=1777 tmpfs /dev/shm"
    for path in visible:
        if path.is_relative_to("/tmp"):  # noqa: S108 - the machine's own folder
            place = temporary / path.relative_to("/tmp")  # noqa: S108 - as above
            yield f"mkdir -p {shlex.quote(str(place))}"
            yield f"mount --bind {shlex.quote(str(path))} {shlex.quote(str(place))}"
    yield f"touch {shlex.quote(str(ready))}"
    yield f"mount --rbind {shlex.quote(str(temporary))} /tmp"
    yield f"hostname {shlex.quote(name)}"
    yield STAY


def _start(command: Sequence[str], folder: Path, ready: Path, depth: int) -> Ancestor:
    """Start the command, and return its descendant ``depth`` generations below it."""
    log_path = folder / "start.log"
    with log_path.open("wb") as log:
        started = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
        )
    try:
        wait_for(lambda: ready.exists() or started.poll() is not None, START_TIMEOUT_S, "a host")
        if started.poll() is not None:
            raise LabError(f"A host did not start: {log_path.read_text().strip()}")
        process = psutil.Process(started.pid)
        for _ in range(depth):
            (process,) = process.children()
        return Ancestor.of(process, started)
    except BaseException:
        started.kill()
        started.wait()
        raise


def entering(
    ancestor: Ancestor, kinds: Sequence[str] = KINDS, *, in_user_namespace: bool
) -> list[str]:
    """Return the beginning of a command that runs in the ancestor's namespaces."""
    user = USER if in_user_namespace else ()
    return ["nsenter", f"--target={ancestor.pid}", *user, *kinds]


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    text: str | None = None,
    timeout_s: float = COMMAND_TIMEOUT_S,
    name: str = "",
) -> str:
    """Run a command and return its output.

    Args:
        text: Its input.
        name: Its name in error messages; empty means the whole command.

    Raises: LabError with the last line of its error output.
    """
    name = name or shlex.join(command)
    try:
        done = subprocess.run(
            command,
            env=None if env is None else dict(env),
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            check=False,  # Its error output says more than its status.
            timeout=timeout_s,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"'{name}' took more than {timeout_s:g} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["no output"]
        raise LabError(f"'{name}' failed: {said[-1]}")
    return done.stdout


def wait_for(condition: Callable[[], object], timeout_s: float, what: str) -> None:
    """Poll until the condition is true. Raises: LabError after ``timeout_s``."""
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_at:
            raise LabError(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(POLL_S)


def is_root() -> bool:
    return os.geteuid() == 0
