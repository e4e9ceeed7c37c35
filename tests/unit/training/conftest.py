"""Shared fixtures of the training tests: the sets, and their states."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from tests.support.training_texts import write_generated
from training import data

Run = Callable[..., None]


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers() -> None:
    logging.disable_progress_bar()


@pytest.fixture(autouse=True, scope="session")
def in_one_thread() -> Iterator[None]:
    """Use one thread: sums are reproducible, and no thread waits for another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def run_module(main: Callable[[], None], *arguments: str | Path) -> None:
    """Call ``main`` with command-line arguments, as ``python -m`` does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["program", *map(str, arguments)])
        main()


@pytest.fixture(scope="session")
def run() -> Run:
    return run_module


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the states of all sets, of which each has 80 passages."""
    root = tmp_path_factory.mktemp("sets")
    for name in data.SETS:
        write_generated(root, name, 80)
    run_module(data.main, "--data", root, "--out", root / "states")
    return root / "states"
