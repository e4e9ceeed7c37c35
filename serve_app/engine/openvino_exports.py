"""Export a model for OpenVINO in a child process, unless the cache has the export.

So a scorer imports neither torch nor transformers; see `docs/decisions/0018`.
"""

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from serve_app.domain.model import EMBEDDED
from serve_app.engine.child_process import ModuleCommand
from serve_app.engine.export_cache import digest, exported, files_below
from serve_app.engine.sources import ModelLoadError

PACKAGES = ("numpy", "openvino", "safetensors", "tokenizers", "torch", "transformers")

SUFFIXES = frozenset({".json", ".model", ".py", ".safetensors", ".txt"})
"""Endings of the files that an export reads."""

REFUSED = 3
"""Exit status of the child process for a ModelLoadError, with its message as the last line."""

TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Export:
    """What to export."""

    source: str
    folder: str
    precision: str
    pair_tokens_max: int | None

    def key(self) -> str:
        options = f"{self.source == EMBEDDED} {self.precision} {self.pair_tokens_max}"
        package, model = (
            files_below(root, SUFFIXES) for root in (Path(__file__).parent, Path(self.folder))
        )
        return digest(options, PACKAGES, package + model)

    def files(self, cache: Path | None) -> AbstractContextManager[Path]:
        """See `serve_app.engine.export_cache.exported`.

        Raises: ModelLoadError; any other error means that the model cannot be exported.
        """
        return exported(self.key(), cache, self._export)

    def _export(self, out: Path, inherited: tuple[int, ...]) -> None:
        if "torch" in sys.modules:
            from serve_app.engine.openvino_export import export  # noqa: PLC0415 - imports torch

            export(self, out)
            return
        command = ModuleCommand.of(
            "serve_app.engine.openvino_export", json.dumps(asdict(self)), str(out)
        )
        done = subprocess.run(  # noqa: S603 - our own module
            command.arguments,
            env=command.environment,
            pass_fds=inherited,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            last_line = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise (ModelLoadError if done.returncode == REFUSED else RuntimeError)(last_line)
