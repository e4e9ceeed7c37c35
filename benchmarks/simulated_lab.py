"""A lab with simulated GPUs, for benchmarks of a cluster of several nodes."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from cluster.lab.lab import Lab
from cluster.lab.start import Say, up


@contextmanager
def simulated_lab(
    config: Mapping[str, Any], say: Say, *, gpu_nodes: int, gpu_tokens_per_s: float
) -> Iterator[Lab]:
    """Run a lab with the service of a Serve config during the block."""
    with tempfile.TemporaryDirectory(prefix="rerank-lab-") as name:
        folder = Path(name)
        file = folder / "config.yaml"
        file.write_text(yaml.safe_dump(dict(config)))
        lab = up(
            folder / "lab",
            None,
            say,
            gpu_nodes=gpu_nodes,
            gpu_tokens_per_s=gpu_tokens_per_s,
            config=file,
        )
        try:
            yield lab
        finally:
            lab.down()
