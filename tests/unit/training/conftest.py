"""Shared fixtures of the training tests: data, the constructed model and its states."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from transformers.utils import logging

from tests.support.training_texts import JUDGED, SAMPLED, write_generated
from training import construct, states

Run = Callable[..., None]


@pytest.fixture(autouse=True, scope="session")
def quiet_transformers() -> None:
    logging.disable_progress_bar()


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: sums are reproducible, and no thread waits for another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="module")
def in_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def run_module(main: Callable[[], None], *arguments: str | Path) -> None:
    """Call ``main`` with command-line arguments, as ``python -m`` does."""
    with pytest.MonkeyPatch.context() as patch, one_thread():
        patch.setattr(sys, "argv", ["program", *map(str, arguments)])
        main()


@pytest.fixture(scope="session")
def run() -> Run:
    return run_module


@pytest.fixture(scope="session")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all five training sets, with 25 questions each."""
    root = tmp_path_factory.mktemp("sets")
    for name in states.SETS:
        write_generated(root, name, 25)
    return root


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the constructed model; building it takes a minute or two."""
    root = tmp_path_factory.mktemp("training")
    write_generated(root, "squad-v1.1-train", SAMPLED)
    run_module(construct.main, "--data", root, "--out", root / "start")
    return root / "start"


@pytest.fixture(scope="session")
def computed(start: Path, sets: Path) -> Path:
    """The folder with the states of ``sets`` and of the judged collection `JUDGED`."""
    folder = start.with_name("states")
    arguments = ("--model", start, "--data", sets, "--judged", JUDGED, "--out", folder)
    run_module(states.main, *arguments)
    return folder
