"""The service that the docs describe, in the folder in which their commands run."""

from collections.abc import Iterator

import pytest
import yaml

from serve_app.deployments.local_ray import free_port
from testkit.service import ROOT, Service

MODEL_FOLDER = "/srv/models/my-reranker"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve ``examples/own_model.yaml`` with a small model at its folder's place."""
    from testkit import tiny_models  # noqa: PLC0415 - imports torch

    folder = tmp_path_factory.mktemp("docs")
    model = tiny_models.build(folder / "my-reranker")
    config = (ROOT / "examples/own_model.yaml").read_text(encoding="utf-8")
    assert MODEL_FOLDER in config
    config = config.replace(MODEL_FOLDER, str(model))
    service = Service.start(folder, yaml.safe_load(config), free_port())
    yield service
    assert service.stop() == 0
