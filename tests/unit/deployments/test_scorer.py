"""A failed device ends the replica's process in any state."""

import subprocess
import sys

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
