"""Programs that run as if some packages were not installed."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Python runs a module of this name at start-up, so child processes of the program are covered.
SITECUSTOMIZE = """\
import sys
from importlib.machinery import PathFinder

class FindsLess(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if any(f"{{name}}.".startswith(f"{{each}}.") for each in {missing!r}):
            return None
        return super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = FindsLess
"""


def run_without(missing: Sequence[str], program: str, folder: Path) -> str:
    """Run ``program`` in a new Python process without ``missing``, and return what it prints.

    Args:
        folder: An empty folder for the module that hides the packages.
    """
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(missing=set(missing)))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{folder}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
