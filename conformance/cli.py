"""The command ``rerank-conformance``."""

import json
import sys
from typing import Any, TextIO

import click
from rich.console import Console

from conformance.checks import GROUPS
from conformance.families import FAMILIES
from conformance.report import show
from conformance.run import run
from conformance.server import Target


@click.command(
    "rerank-conformance",
    context_settings={"help_option_names": ["-h", "--help"], "show_default": True},
)
@click.option("--base-url", required=True, help="Address of the server, for example http://HOST.")
@click.option("--family", required=True, type=click.Choice(list(FAMILIES)), help="Its API.")
@click.option("--model", help="Name of the model in requests.")
@click.option("--api-key", envvar="RERANK_API_KEY", show_envvar=True, help="API key.")
@click.option("--limited-api-key", help="An API key that soon reaches its limit of requests.")
@click.option("--documents-max", type=int, help="Most documents that a request may have.")
@click.option("--usage-url", help="URL that returns the usage of the key as JSON.")
@click.option("--usage-field", help="Name of the field there with the charges.")
@click.option("--origin", help="Origin of a web page that may call the server.")
@click.option("--tolerance", default=1e-3, help="Largest difference between equal scores.")
@click.option("--group", "groups", multiple=True, type=click.Choice(GROUPS), help="Run only these.")
@click.option("--json", "file", type=click.File("w"), help="Also write the report to this file.")
def main(family: str, groups: tuple[str, ...], file: TextIO | None, **target: Any) -> None:
    """Check whether a rerank server has the API that clients of a family expect.

    The exit status is 1 if a check fails.
    """
    report = run(FAMILIES[family], Target(**target), groups or GROUPS)
    show(report, Console())
    if file is not None:
        json.dump(report.as_json(), file, indent=1)
        file.write("\n")
    sys.exit(1 if report.failed else 0)
