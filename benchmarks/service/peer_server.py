"""A peer's rerank server for `benchmarks.service.peers`: Infinity, in its own environment."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import httpx

FOLDER = Path(__file__).resolve().parents[2] / "var/peers/infinity"

PEER_REQUIREMENTS = (
    "infinity-emb[server,torch]==0.0.78",
    f"torch=={version('torch').partition('+')[0]}",  # Same as ours, for the same kernels.
    "transformers==4.48.3",  # optimum 1 refuses 4.49 and later.
    "optimum==1.27.0",  # Infinity imports bettertransformer, which optimum 2 has removed.
    "sentence-transformers==3.4.1",
    "tokenizers==0.21.4",
    "huggingface_hub==0.36.2",
    "numpy==1.26.4",
    "click==8.1.8",  # typer 0.12, which Infinity requires, fails with 8.2 and later.
    "typer==0.12.5",
    "fastapi==0.165.0",
    "starlette==1.10.0",
    "uvicorn==0.32.1",
    "pydantic==2.14.4",
)
"""A set of compatible versions. Infinity's own requirements allow incompatible ones."""

OPTIONS = ("--engine", "torch", "--batch-size", "32", "--no-bettertransformer", "--no-compile")
"""Infinity's defaults except BetterTransformer, which is slower on CPUs: 21 documents/s instead of
25 in float32 on two cores with AVX2."""

START_TIMEOUT_S = 300.0
MODEL = "peer"


class PeerError(Exception):
    """There is no peer to measure. The message gives the reason in one line."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A virtual environment that contains Infinity."""

    python: Path
    versions: dict[str, str]


@dataclass(frozen=True, slots=True)
class PeerServer:
    """A running Infinity server."""

    address: str
    pid: int


def installed(python: Path | None) -> Peer:
    """Return the environment of the interpreter ``python``; ``None``: ours, created if missing.

    Raises: PeerError.
    """
    if python is None:
        python = FOLDER / "bin/python"
        _install(python)
    names = ("infinity-emb", "torch", "transformers")
    ask = f"from importlib.metadata import version as v; print(*map(v, {names}))"
    said = _run([python, "-c", ask], f"{python} has no Infinity")
    return Peer(python, dict(zip(names, said.split(), strict=True)))


def _install(python: Path) -> None:
    stamp = FOLDER / "installed.txt"
    wanted = "\n".join(PEER_REQUIREMENTS)
    if python.exists() and stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Installing the peer into {FOLDER}; it takes some minutes.", flush=True)
    _run([sys.executable, "-m", "venv", FOLDER], "the peer's environment cannot be created")
    _run([python, "-m", "pip", "install", "-q", *PEER_REQUIREMENTS], "the peer cannot be installed")
    stamp.write_text(wanted)


def _run(command: list[str | Path], problem: str) -> str:
    """Run the command and return its output. Raises: PeerError."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise PeerError(f"{problem}: {error}") from None
    if done.returncode != 0:
        raise PeerError(f"{problem}: {last_line(done.stderr)}")
    return done.stdout


@contextmanager
def running(
    peer: Peer, model: Path, precision: str, device: str, port: int
) -> Iterator[PeerServer]:
    """Start Infinity with the model folder ``model``, and wait until it is ready.

    Raises: PeerError.
    """
    output = model.with_name("peer.txt")
    with output.open("wb") as file:
        process = subprocess.Popen(
            [
                *(peer.python.with_name("infinity_emb"), "v2", "--model-id", model),
                *("--served-model-name", MODEL, "--dtype", precision, "--device", device),
                *("--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"),
                *OPTIONS,
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"},  # noqa: TID251 - passed on
        )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_until_ready(process, address, output)
        yield PeerServer(address, process.pid)
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], address: str, output: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{address}/health", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise PeerError(f"the peer does not start: {last_line(output.read_text(errors='replace'))}")


def last_line(text: str) -> str:
    """Return the last line with text, without the frames that Infinity draws around its errors."""
    lines = [line.strip(" │╰╯─╭╮") for line in text.splitlines()]
    return next((line for line in reversed(lines) if line), "no output")
