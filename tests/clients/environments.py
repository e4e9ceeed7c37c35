"""Virtual environments with locked versions of the client libraries, in ``var/clients``.

The folder ``envs`` has the requirements of each environment in ``NAME.in``, and the versions to
which ``python -m tests.clients lock`` resolved them in ``NAME.txt``. The environment ``javascript``
contains Node.js from PyPI, and npm's packages as locked in ``envs/javascript``.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from testkit.service import ROOT

FOLDER = Path(__file__).parent
ENVS, SCRIPTS = FOLDER / "envs", FOLDER / "scripts"
BUILT = ROOT / "var/clients"
UV = Path(sys.executable).with_name("uv")
JAVASCRIPT = "javascript"
STAMP = "installed.sha256"


def python_of(env: str) -> Path:
    return BUILT / env / "bin/python"


def sources_of(env: str) -> Path:
    """Return the folder in which the libraries of ``env`` are installed."""
    if env == JAVASCRIPT:
        return BUILT / env / "node_modules"
    (found,) = (BUILT / env / "lib").glob("python3.*/site-packages")
    return found


def versions(env: str) -> Mapping[str, str]:
    """Return the locked versions of ``env`` by package name."""
    text = (ENVS / f"{env}.txt").read_text(encoding="utf-8")
    found = dict(re.findall(r"^(\S+)==(\S+)$", text, re.MULTILINE))
    if env == JAVASCRIPT:
        lock = json.loads((ENVS / env / "package-lock.json").read_text(encoding="utf-8"))
        found |= {
            path.removeprefix("node_modules/"): package["version"]
            for path, package in lock["packages"].items()
            if path
        }
    return found


def create(env: str) -> None:
    """Create or update the environment, unless it has the locked versions."""
    folder = BUILT / env
    stamp, wanted = folder / STAMP, _digest(env)
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    _run(UV, "venv", "--clear", "--python", sys.executable, folder)
    _run(UV, "pip", "sync", "--python", python_of(env), ENVS / f"{env}.txt")
    if env == JAVASCRIPT:
        for name in ("package.json", "package-lock.json"):
            shutil.copy(ENVS / env / name, folder)
        npm = folder / "bin/npm"
        _run(npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder, path=npm.parent)
    stamp.write_text(wanted)


def lock() -> None:
    """Resolve all requirements to their newest allowed versions."""
    for requirements in sorted(ENVS.glob("*.in")):
        _run(
            *(UV, "pip", "compile", "--upgrade", "--python-version", "3.11", "--no-annotate"),
            *("--no-header", "--output-file", requirements.with_suffix(".txt"), requirements),
        )


def command(env: str, script: str, name: str) -> list[str | Path]:
    """Return the command that answers calls with the client ``name`` of ``script``."""
    if env != JAVASCRIPT:
        return [python_of(env), SCRIPTS / script, name]
    # Node.js looks for packages in the folders above a script.
    for source in SCRIPTS.glob("*.mjs"):
        shutil.copy(source, BUILT / env)
    return [BUILT / env / "bin/node", BUILT / env / script, name]


def _digest(env: str) -> str:
    locks = [ENVS / f"{env}.txt"]
    if env == JAVASCRIPT:
        locks.append(ENVS / env / "package-lock.json")
    return hashlib.sha256(b"".join(each.read_bytes() for each in locks)).hexdigest()


def _run(*words: str | Path, cwd: Path = ROOT, path: Path | None = None) -> None:
    env = dict(os.environ)  # noqa: TID251 - for a child process
    if path is not None:
        env["PATH"] = f"{path}{os.pathsep}{env['PATH']}"
    done = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
