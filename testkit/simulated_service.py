"""A service whose scorers are simulated GPUs, for benchmarks."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serve_app.deployments.local_ray import free_port
from testkit.service import ROOT, Service
from testkit.simulation import BATCHES_AT_ONCE, SIMULATED_SCORER, TOKENS_PER_S


@contextmanager
def simulated_service(
    config: Mapping[str, Any], tokens_per_s: int, batches_at_once: int = 2, /, **variables: str
) -> Iterator[Service]:
    """Run the service of ``config`` during the block.

    Args:
        config: See `testkit.service.serve_config`. The scorers of all models are replaced.
        tokens_per_s: Speed of each simulated GPU.
        batches_at_once: Batches that a simulated GPU accepts at the same time.
        variables: Further environment variables of the service.
    """
    for application in config["applications"][1:]:
        application["import_path"] = SIMULATED_SCORER
    variables |= {
        "PYTHONPATH": str(ROOT),
        TOKENS_PER_S: str(tokens_per_s),
        BATCHES_AT_ONCE: str(batches_at_once),
    }
    with tempfile.TemporaryDirectory() as folder:
        service = Service.start(Path(folder), config, free_port(), **variables)
        try:
            yield service
        finally:
            service.stop()
