"""Shared fixtures of the engine's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from testkit.tiny_models import FAMILIES, build


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers() -> None:
    logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def as_many_threads_as_before() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each family."""
    root = tmp_path_factory.mktemp("models")
    return {family: build(root / family, family) for family in FAMILIES}
