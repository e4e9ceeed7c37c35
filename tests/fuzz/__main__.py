"""``python -m tests.fuzz``: send generated requests to the service, and check every answer.

Schemathesis generates valid and invalid requests from the OpenAPI document. No answer may be a 5xx,
and every answer must have a status, headers and a body that the document describes.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import click

from tests.fuzz.service import serving

COMMAND = Path(sys.executable).with_name("schemathesis")
CONFIG = Path(__file__).with_name("schemathesis.toml")

RESPONSE_S_MAX = 4
"""Less than the default timeout of a request."""


@click.command()
@click.option("--seconds", type=click.IntRange(1), default=600, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True)
def main(seconds: int, seed: int) -> None:
    """Exit with a status other than 0 if an answer is wrong."""
    sys.exit(fuzz(seconds, seed, "--max-response-time", str(RESPONSE_S_MAX)))


def fuzz(seconds: int, seed: int, *options: str) -> int:
    """Print a report; return 0 if all answers are right. ``options`` are Schemathesis's."""
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as (address, key):
        arguments = [
            *(str(COMMAND), "--config-file", str(CONFIG), "run", f"{address}/openapi.json"),
            *("--header", f"Authorization: Bearer {key}"),
            *("--max-time", str(seconds), "--seed", str(seed), *options),
        ]
        return subprocess.run(arguments, cwd=folder, check=False).returncode


if __name__ == "__main__":
    main()
