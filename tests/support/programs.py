"""Programs that come with the development requirements."""

import shutil
import sys
from pathlib import Path


def program(name: str) -> str:
    """Return the path of a program of the environment of these tests, or else of the PATH."""
    own = shutil.which(name, path=Path(sys.executable).parent)
    found = own or shutil.which(name)
    assert found is not None, f"{name} is missing: run 'make .venv/.dev'"
    return found
