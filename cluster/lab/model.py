"""Fill the local cache of the hub with one model in place of each model from the hub.

The config file stays as it is: the nodes find its models in the cache, as they would after a
download. So the lab needs neither the hub nor a GPU, because the model can be tiny.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.lab.namespaces import run
from serve_app.domain.model import EMBEDDED

COMMIT = "0" * 40

BUILD = """
import pathlib, sys
from testkit import tiny_models
tiny_models.build(pathlib.Path(sys.argv[1]))
"""


def hub_models(config_path: Path) -> set[str]:
    """Return the ids of the hub's models in a Serve config file."""
    return set(_hub_models(yaml.safe_load(config_path.read_text())))


def _hub_models(config: dict[str, Any]) -> Iterator[str]:
    for application in config["applications"]:
        source = application.get("args", {}).get("checkpoint", {}).get("source", EMBEDDED)
        if source != EMBEDDED and not Path(source).is_absolute():
            yield source


def fill_cache(hub_ids: set[str], folder: Path, hugging_face: Path) -> None:
    """Put a copy of the model in ``folder`` into the cache for each id."""
    for hub_id in hub_ids:
        place = hugging_face / "hub" / f"models--{hub_id.replace('/', '--')}"
        (place / "refs").mkdir(parents=True)
        (place / "refs" / "main").write_text(COMMIT)
        shutil.copytree(folder, place / "snapshots" / COMMIT)


def build_tiny(folder: Path) -> None:
    """Write a tiny model with random weights to ``folder``. Raises: LabError."""
    # In another process, because libraries print their progress.
    run([sys.executable, "-c", BUILD, str(folder)], name="the tiny model")
