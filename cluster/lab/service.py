"""Ray, Serve and the ledger inside the hosts, with the commands of docs/operate/deploy.md."""

import json
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from cluster.lab import plan
from cluster.lab.namespaces import LabError
from testkit.simulation import SIMULATED_SCORER

ROOT = Path(__file__).parents[2]
RAY_ENV = ROOT / "cluster" / "ray.env"
PRODUCTION = ROOT / "cluster" / "production.yaml"
BIN = Path(sys.executable).parent
TENANT = "lab"
CREDIT_DOLLARS = "1000"
DASHBOARD = "http://127.0.0.1:8265"

WITH_RAY_ENV = 'umask 077; set -a; . "$0"; set +a; exec "$@"'
"""Shell script that runs its arguments with the variables of `RAY_ENV`."""

# It starts fast, because it loads no certificates and no packages of the virtual environment.
FETCH = """
import sys, urllib.error, urllib.request
url, token = sys.argv[1:]
headers = {"Authorization": f"Bearer {token}"} if token else {}
try:
    answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10)
except urllib.error.HTTPError as error:
    answer = error
except OSError:
    sys.exit()
print(answer.status)
sys.stdout.flush()
sys.stdout.buffer.write(answer.read())
"""
"""Program that prints the status and the body of a GET, or nothing without an answer."""


def environment(folder: Path, token: str) -> dict[str, str]:
    """Return the variables of every host."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "RERANK_", "HF_"))
    }
    return kept | {
        "PATH": f"{BIN}:{os.environ.get('PATH', '')}",
        "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *_python_path()])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": "/tmp",  # noqa: S108 - the host's own
        "TMPDIR": "/tmp",  # noqa: S108 - as above
        "HF_HOME": str(folder / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "RAY_AUTH_TOKEN": token,
        "RERANK_DATABASE_URL": plan.database_url(),
    }


def code_folders() -> list[Path]:
    """Return the folders of the code and of all programs that come from PyPI."""
    return [ROOT, Path(sys.prefix), Path(sys.base_prefix), *_python_path()]


def _python_path() -> list[Path]:
    return [Path(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]


def with_ray_env(command: Sequence[str]) -> list[str]:
    return ["bash", "-c", WITH_RAY_ENV, str(RAY_ENV), *command]


def head_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the head, which keeps its state in Redis."""
    return {**env, "RAY_REDIS_ADDRESS": plan.redis_address()}


def with_simulated_gpus(config: Path, folder: Path) -> Path:
    """Write a copy of a Serve config file whose scorers have simulated GPUs."""
    content = yaml.safe_load(config.read_text())
    for application in content["applications"]:
        if application["import_path"] == "serve_app.app:scorer":
            application["import_path"] = SIMULATED_SCORER
    copy = folder / "simulated.yaml"
    copy.write_text(yaml.safe_dump(content))
    return copy


def fetch(url: str, token: str | None = None) -> list[str]:
    """Return the command that prints the answer to a GET."""
    return [sys.executable, "-I", "-S", "-c", FETCH, url, token or ""]


def fetched(output: str) -> tuple[int, Any]:
    """Return the status and the JSON that `fetch` printed; (0, None) for no answer."""
    status, _, body = output.partition("\n")
    try:
        return int(status or 0), json.loads(body) if body else None
    except ValueError:
        return int(status or 0), None


def state_of(answer: Any) -> dict[str, Any]:
    """Return the state of the service from the answer of Ray's dashboard.

    The result has the status of the applications, or that of the first that does not run, its
    message, the state of each replica with its node, and the addresses of the nodes on which
    HAProxy runs.
    """
    applications = answer["applications"]
    statuses = [(each["status"], each["message"]) for each in applications.values()]
    status, message = next(
        (each for each in statuses if each[0] != "RUNNING"),
        ("RUNNING" if statuses else "NOT_STARTED", ""),
    )
    return {
        "application": status,
        "message": message,
        "replicas": [
            {
                "deployment": name,
                "application": application,
                "id": replica["replica_id"],
                "state": replica["state"],
                "address": replica.get("node_ip"),
            }
            for application, found in sorted(applications.items())
            for name, deployment in sorted(found.get("deployments", {}).items())
            for replica in deployment["replicas"]
        ],
        "proxies": {
            proxy["node_ip"]: proxy["status"] for proxy in (answer.get("proxies") or {}).values()
        },
    }


def ledger_script() -> str:
    """Return the shell script that creates the ledger, a tenant with credit and a key.

    Its output ends with the key.
    """
    command = shlex.quote(str(BIN / "rerank-serve"))
    return " && ".join(
        [
            f"{command} ledger migrate",
            f"{command} tenants add {TENANT} --credit {CREDIT_DOLLARS}",
            f"{command} keys create {TENANT}",
        ]
    )


def key_in(output: str) -> str:
    """Raises: LabError when ``output`` contains no key."""
    found = re.search(r"\brk_\S+", output)
    if found is None:
        raise LabError(f"'rerank-serve keys create' printed no key: {output.strip()}")
    return found[0]
