"""AIPerf's endpoint types for ranking, each call as one run of its command line."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from worker import MODEL, Call, Reply, serve

ROUTES = {
    "cohere-rankings": "/v2/rerank",
    "hf-tei-rankings": "/rerank",
    "nim-rankings": "/v1/ranking",
}
TYPE = sys.argv[1]


class RequestFailed(Exception):
    """A run whose only request failed."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def profile(call: Call) -> Reply:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        texts = [
            {"name": "query", "contents": [call.query]},
            {"name": "passages", "contents": call.documents},
        ]
        (folder / "input.jsonl").write_text(json.dumps({"texts": texts}) + "\n")
        run(call, folder)
        error = json.loads((folder / "out/profile_export.jsonl").read_text()).get("error")
        if error:
            raise RequestFailed(error["code"], error["message"])
        record = json.loads((folder / "out/profile_export_raw.jsonl").read_text())
    answer = json.loads(record["responses"][0]["text"])
    if isinstance(answer, dict):
        answer = answer.get("results") or answer["rankings"]
    return {"indices": [each["index"] for each in answer]}


def run(call: Call, folder: Path) -> None:
    subprocess.run(
        [
            *(Path(sys.executable).with_name("aiperf"), "profile", "--model", MODEL),
            *("--endpoint-type", TYPE, "--endpoint", ROUTES[TYPE], "--url", call.address),
            *("--api-key", call.key, "--extra-inputs", f"top_n:{call.top_n}"),
            *("--input-file", folder / "input.jsonl", "--custom-dataset-type", "single_turn"),
            *("--request-count", "1", "--concurrency", "1", "--export-level", "raw"),
            *("--tokenizer", os.environ["TOKENIZER_FOLDER"], "--artifact-dir", folder / "out"),
            *("--ui", "none", "--no-gpu-telemetry", "--no-server-metrics"),
        ],
        stdout=sys.stderr,
        check=False,
    )


serve({TYPE: profile})
