"""Run a module of this package in a child process."""

import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ModuleCommand:
    """The arguments of `subprocess` for a module that imports what this process imports."""

    arguments: list[str]
    environment: dict[str, str]

    @classmethod
    def of(cls, module: str, *arguments: str) -> "ModuleCommand":
        # -P keeps the working directory off the import path, unless it is on this process's own.
        return cls(
            [sys.executable, "-P", "-m", module, *arguments],
            os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # noqa: TID251 - for a child
        )
