"""What does the engine do on a GPU? One command, at most six minutes.

    python -m benchmarks.gpu --json FILE

It needs torch, transformers, tokenizers and numpy; with sentence-transformers it also measures
`CrossEncoder.predict`. The model has MiniLM-L12's shape and random weights, because speed and
memory do not depend on them. Each section has a time limit and keeps what it has found by then. The
file is written after each section, so an error in one does not lose the others.

Without a GPU, a tiny model runs through the same sections: that tests the program, and its figures
mean nothing.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu import agreement, launches, memory, peer, profiled, speed, unpadded
from benchmarks.gpu.subject import Subject, environment, prepare
from benchmarks.gpu.timing import OutOfTime, at_most
from benchmarks.machine import machine
from serve_app.engine.sources import first_line

Section = Callable[[Subject, dict[str, Any]], None]

SECTIONS: dict[str, tuple[Section, float]] = {
    "agreement": (agreement.run, 40),
    "speed": (speed.run, 90),
    "peer": (peer.run, 75),
    "unpadded": (unpadded.run, 20),
    "profile": (profiled.run, 30),
    "memory": (memory.run, 20),
    "launches": (launches.run, 65),
}
"""Each with its limit in seconds. The ones most likely to damage the CUDA context come last."""

NO_GPU = "No GPU: a tiny model runs on the CPU to test this program. Its figures mean nothing."


def main() -> None:
    parser = argparse.ArgumentParser(description="The engine on a GPU, in at most six minutes.")
    parser.add_argument("--json", type=Path, required=True, help="write everything to this file")
    chosen = parser.parse_args()
    # The sections measure torch. On a CPU, the engine would use OpenVINO if it is installed.
    sys.modules["openvino"] = None  # type: ignore[assignment]  # marks it as missing
    with tempfile.TemporaryDirectory() as name:
        subject = prepare(Path(name))
        result: dict[str, Any] = {
            "question": "What does the engine do on a GPU?",
            "date": datetime.now(UTC).date().isoformat(),
            "device": subject.device.type,
            "machine": asdict(machine()),
            "environment": environment(subject.device),
        }
        if subject.device.type != "cuda":
            result["note"] = NO_GPU
            print(NO_GPU)
        print(result["environment"])
        for title, (section, limit_s) in SECTIONS.items():
            print(f"{title} (at most {limit_s:g} s)", flush=True)
            result[title] = found = measured(section, subject, limit_s)
            print(f"  took {found['took_s']} s", flush=True)
            _write(result, chosen.json)
    result["headline"] = headline(result)
    print(json.dumps(result["headline"], indent=2))
    _write(result, chosen.json)


def measured(section: Section, subject: Subject, limit_s: float) -> dict[str, Any]:
    """Return what ``section`` finds within its time, with its error, if any."""
    found: dict[str, Any] = {}
    started = time.perf_counter()
    try:
        with at_most(limit_s):
            section(subject, found)
    except OutOfTime:
        found["stopped"] = f"after {limit_s:g} s"
        print(f"  stopped after {limit_s:g} s")
    except Exception as error:  # noqa: BLE001 - the other sections shall still run
        found["error"] = f"{type(error).__name__}: {first_line(error)}"
        traceback.print_exc()
    found["took_s"] = round(time.perf_counter() - started, 1)
    return found


def headline(result: dict[str, Any]) -> dict[str, Any]:
    """Return the few figures that answer the question; ``None`` where a section did not finish."""
    ours, peer = result["speed"], result["peer"]
    apart = ours.get("best_typical_documents_per_s"), peer.get("best_typical_tokenizing_apart")
    tokenizing = (
        ours.get("typical_documents_per_s_with_tokenizing"),
        peer.get("best_typical_with_tokenizing"),
    )
    return {
        "documents_per_s_tokenizing_apart": apart[0],
        "cross_encoder_documents_per_s_tokenizing_apart": apart[1],
        "ratio_tokenizing_apart": _ratio(*apart),
        "documents_per_s_with_tokenizing": tokenizing[0],
        "cross_encoder_documents_per_s_with_tokenizing": tokenizing[1],
        "ratio_with_tokenizing": _ratio(*tokenizing),
        "float16": result["agreement"].get("float16"),
        "errors": {
            name: part.get("error") or part.get("stopped")
            for name, part in result.items()
            if isinstance(part, dict) and ("error" in part or "stopped" in part)
        },
    }


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return round(ours / theirs, 3) if ours and theirs else None


def _write(result: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
