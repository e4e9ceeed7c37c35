"""The command line ``rerank-serve``."""

import click

from serve_app import __version__
from serve_app.cli.accounts import COMMANDS
from serve_app.cli.books import ledger
from serve_app.cli.canary import canary
from serve_app.cli.check import check
from serve_app.cli.drain import drain
from serve_app.cli.loadtest import loadtest
from serve_app.cli.models import models
from serve_app.cli.plan import plan
from serve_app.cli.up import up


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rerank-serve")
def main() -> None:
    """Serve cross-encoders as a metered HTTP API on Ray Serve."""


main.add_command(up)
main.add_command(check)
main.add_command(drain)
main.add_command(canary)
main.add_command(models)
main.add_command(ledger)
main.add_command(plan)
main.add_command(loadtest)
for command in COMMANDS:
    main.add_command(command)
