"""``rerank-serve drain``: empty a node before it stops."""

import subprocess
import sys
import time
from pathlib import Path

import click
import psutil

PROCESSES = ("ray::ServeReplica:", "ray::HAProxyManager")
"""The titles of the processes that handle requests begin with these."""

COMMAND_TIMEOUT_S = 30.0
POLL_S = 0.5


@click.command()
@click.option(
    "--seconds",
    type=click.IntRange(1, 3_600),
    default=570,
    show_default=True,
    help="Longest time to wait. A replica without a replacement stops before this time is over.",
)
def drain(seconds: int) -> None:
    """Move this node's replicas to other nodes before the node stops.

    Run this command on the node. Each replica stops when its replacement runs and its own requests
    are answered.
    HAProxy's health check fails at once, and HAProxy stops when its connections are idle. The
    command returns when no replica and no HAProxy is left. Ray then ends on this node. To use the
    node again, start Ray again.
    """
    deadline = time.monotonic() + seconds
    if not _busy():
        click.echo("This node has no replicas.")
        return
    _announce(seconds)
    while _busy():
        if time.monotonic() > deadline:
            raise click.ClickException(f"The node still has {', '.join(_busy())}.")
        time.sleep(POLL_S)
    click.echo("This node is drained.")


def _busy() -> list[str]:
    titles = (" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"]))
    return sorted(title for title in titles if title.startswith(PROCESSES))


def _announce(seconds: int) -> None:
    """Let Ray migrate what runs on this node. Raises: ClickException."""
    command = [
        str(Path(sys.executable).with_name("ray")),
        "drain-node",
        "--reason=DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message=rerank-serve drain",
        f"--deadline-remaining-seconds={seconds}",
    ]
    try:
        subprocess.run(  # noqa: S603 - Ray's own command
            command, check=True, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        reason = f"It did not answer within {error.timeout:g} s."
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines()[-1]
    else:
        return
    raise click.ClickException(f"Ray cannot drain this node. {reason}")
