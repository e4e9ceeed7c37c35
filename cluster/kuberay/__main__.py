"""``python -m cluster.kuberay``: copy what the manifests share with other ways to deploy.

Kustomize reads only files below the folder of its kustomization, so it needs copies. A test checks
that they are current.
"""

from collections.abc import Iterable, Mapping
from itertools import dropwhile
from pathlib import Path
from textwrap import indent

FOLDER = Path(__file__).parent
CLUSTER = FOLDER.parent
NOTE = "# Copied from cluster/{} by `python -m cluster.kuberay`. Do not edit.\n"
RULES = ("objectives.yaml", "alerts.yaml")
RULE = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: rerank
spec:
  groups:
"""
HAPROXY = "RAY_SERVE_HAPROXY_BINARY_PATH"
HAPROXY_IN_IMAGES = "/opt/rerank/bin/rerank-serve-haproxy"


def copies() -> Mapping[Path, str]:
    """Return the content of the copied files."""
    lines = (CLUSTER / "ray.env").read_text().splitlines(keepends=True)
    variables = [line for line in lines if line.strip() and not line.startswith("#")]
    production = (CLUSTER / "production.yaml").read_text().splitlines(keepends=True)
    without_header = dropwhile(lambda line: line.startswith("#"), production)
    rules = [(CLUSTER / "prometheus" / name).read_text() for name in RULES]
    return {
        FOLDER / "base/ray.env": NOTE.format("ray.env") + "".join(map(_for_images, variables)),
        FOLDER / "fleet/serve.yaml": NOTE.format("production.yaml") + "".join(without_header),
        FOLDER / "components/prometheus-operator/rules.yaml": _prometheus_rule(rules),
    }


def _prometheus_rule(files: Iterable[str]) -> str:
    """Return an object of the Prometheus Operator with the rules of all ``files``."""
    groups = "".join(indent(text.partition("\ngroups:\n")[2], " " * 2) for text in files)
    return NOTE.format("prometheus") + RULE + groups


def _for_images(line: str) -> str:
    """Replace the shell command in ``line``, which Kubernetes would not run."""
    name = line.partition("=")[0]
    return f"{HAPROXY}={HAPROXY_IN_IMAGES}\n" if name == HAPROXY else line


if __name__ == "__main__":
    for path, content in copies().items():
        path.write_text(content)
