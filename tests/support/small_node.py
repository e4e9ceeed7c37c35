"""A node of Ray with a small disk and little memory, which a test can fill. It needs root.

The root of its file system is an overlay over the machine's, whose changes are in a small tmpfs.
Its processes are in a control group with a limit of memory.
"""

import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.lab.service import code_folders
from serve_app.deployments.local_ray import free_port
from testkit.service import environment, wait_for
from tests.support.scraped import FAST_METRICS

DISK_BYTES = 64 * 2**20
MEMORY_BYTES = 1_500 * 2**20
FULL = 0.94

SCRIPT = """
set -e
root=$1 group=$2 mounted_group=$3 folders=$4
shift 4
echo 0 > "$group/cgroup.procs"
mount --bind "$group" "$mounted_group"
mount -t tmpfs -o size=$DISK_BYTES tmpfs "$root"
mkdir "$root/changes" "$root/work" "$root/all"
mount -t overlay -o "lowerdir=/,upperdir=$root/changes,workdir=$root/work" overlay "$root/all"
for folder in /proc /sys /dev /tmp $folders; do mount --rbind "$folder" "$root/all$folder"; done
exec chroot "$root/all" "$@"
"""
"""It leaves the machine's own mounts unchanged, because it runs in a namespace for mounts."""

UNSHARE = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]

HOLD = "import sys, time; held = b'x' * int(sys.argv[1]); time.sleep(3600)"
FILL = "import sys; open('/var/filler', 'wb').write(bytes(int(sys.argv[1])))"


@dataclass(frozen=True, slots=True)
class MemoryGroup:
    """A new control group for memory, of version 1 or 2."""

    folder: Path
    parent: Path
    """Where Ray looks for the limit of its own group."""

    limit: str
    usage: str

    @classmethod
    def create(cls) -> "MemoryGroup":
        parent = Path("/sys/fs/cgroup")
        files = ("memory.max", "memory.current")
        if (parent / "memory").exists():
            parent /= "memory"
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes")
        group = cls(parent / f"rerank-{uuid.uuid4().hex}", parent, *files)
        group.folder.mkdir()
        (group.folder / group.limit).write_text(str(MEMORY_BYTES))
        return group

    def remove(self) -> None:
        """Remove the group. Its processes must have ended."""
        wait_for(lambda: not (self.folder / "cgroup.procs").read_text(), what="their end")
        self.folder.rmdir()


@dataclass(frozen=True, slots=True)
class SmallNode:
    """A running node."""

    metrics: str
    """Address and port of its metrics."""

    _process: "subprocess.Popen[bytes]"
    _group: MemoryGroup

    def fill_disk(self) -> None:
        self._run(FILL, int(FULL * DISK_BYTES) - 2**20)

    def fill_memory(self) -> None:
        used = int((self._group.folder / self._group.usage).read_text())
        self._run(HOLD, int(FULL * MEMORY_BYTES) - used, "&> /dev/null &")

    def _run(self, program: str, size: int, how: str = "") -> None:
        (first,) = psutil.Process(self._process.pid).children()
        enter = ["nsenter", f"--target={first.pid}", "--mount", "--pid", "--root"]
        command = shlex.join([*enter, sys.executable, "-I", "-S", "-c", program, str(size)])
        script = f"echo 0 > {self._group.folder}/cgroup.procs; {command} {how}"
        subprocess.run(["bash", "-c", script], check=True)


@contextmanager
def small_node(folder: Path) -> Iterator[SmallNode]:
    """Run a node of Ray while the block runs. ``folder`` gets its output."""
    (root := folder / "root").mkdir()
    group, metrics = MemoryGroup.create(), free_port()
    ray = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
        *("--temp-dir=/ray", "--num-cpus=1", "--object-store-memory=100000000"),
        *("--include-dashboard=false", "--disable-usage-stats", f"--port={free_port()}"),
        *(f"--metrics-export-port={metrics}", f"--ray-client-server-port={free_port()}"),
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    folders = " ".join(str(each) for each in code_folders())
    arguments = [str(root), str(group.folder), str(group.parent), folders, *ray]
    env = environment(folder, **FAST_METRICS, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0e" * 32)
    with (folder / "ray.txt").open("wb") as output:
        process = subprocess.Popen(
            [*UNSHARE, "bash", "-c", SCRIPT, "node", *arguments],
            env=env | {"DISK_BYTES": str(DISK_BYTES)},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield SmallNode(f"127.0.0.1:{metrics}", process, group)
    finally:
        process.kill()
        process.wait(60)
        group.remove()
