"""A failed device ends the replica's process in any state."""

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.deployments import scorer
from serve_app.domain.errors import EngineFailure
from serve_app.settings.models import Checkpoint
from serve_app.settings.scorer import ScorerSettings

END = """
import logging
from serve_app.deployments.scorer import _end_process
from serve_app.domain.errors import EngineFailure

class Broken(logging.Handler):
    def emit(self, record):
        print(record.getMessage(), record.reason, flush=True)
        raise RuntimeError("the log is full")

logging.getLogger().addHandler(Broken())
_end_process(EngineFailure("the device is gone"))
print("still alive", flush=True)
"""


def test_a_failed_device_ends_the_process_even_if_logging_fails() -> None:
    done = subprocess.run([sys.executable, "-c", END], capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert done.stdout == "device_failed the device is gone\n"


def test_a_failed_warm_up_is_logged_in_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    class LacksMemory:
        def warm_up(self) -> None:
            raise EngineFailure("cuda lacks memory")

    replica = SimpleNamespace(replica_id=SimpleNamespace(unique_id="r1"))
    monkeypatch.setattr(scorer, "join_serve_log", lambda: None)
    monkeypatch.setattr(scorer, "load_engine", lambda *_: LacksMemory())
    monkeypatch.setattr("ray.serve.get_replica_context", lambda: replica)
    deployment: Any = scorer.Scorer
    settings = ScorerSettings(checkpoint=Checkpoint(source="tiny"), var_dir=tmp_path)

    with caplog.at_level(logging.CRITICAL), pytest.raises(EngineFailure, match="lacks memory"):
        deployment.func_or_class(settings)

    (record,) = caplog.records
    assert record.getMessage() == "scorer_cannot_start"
    assert vars(record)["reason"] == "cuda lacks memory"
