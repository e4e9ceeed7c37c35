"""The command line of the lab."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError
from cluster.lab.plan import GPU_NODES
from cluster.lab.service import ROOT, with_ray_env
from cluster.lab.start import up

FOLDER = ROOT / "var" / "lab"

folder_option = click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=FOLDER,
    show_default="var/lab",
    help="Folder of the lab's files. 'down' removes it.",
)


class Commands(click.Group):
    """A group of commands whose expected failures are messages of one line."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LabError as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run a cluster of several hosts on this machine, in namespaces."""


@main.command("up")
@folder_option
@click.option(
    "--model",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the model to serve under the names of cluster/production.yaml."
    "  [default: a tiny model with random weights]",
)
@click.option(
    "--gpu-nodes",
    type=click.IntRange(1, 4),
    default=GPU_NODES,
    show_default=True,
    help="Number of GPU nodes.",
)
@click.option(
    "--gpu-tokens-per-s",
    type=float,
    help="Simulate GPUs of this speed, so that more scorers have more throughput. Their scores are"
    " 0.  [default: scorers use the CPU]",
)
def up_command(
    folder: Path, model: Path | None, gpu_nodes: int, gpu_tokens_per_s: float | None
) -> None:
    """Start the lab, deploy cluster/production.yaml, and wait until it is ready."""
    console = Console(highlight=False)
    lab = up(
        folder.absolute(),
        model and model.absolute(),
        console.print,
        gpu_nodes=gpu_nodes,
        gpu_tokens_per_s=gpu_tokens_per_s,
    )
    console.print(f"Ready after {lab.up_s:g} s.")
    console.print(f"  key:       {lab.key}", soft_wrap=True)
    for host in lab.proxies():
        console.print(f"  {host.name + ':':<10} {host.url}")


@main.command("down")
@folder_option
def down(folder: Path) -> None:
    """End all processes of the lab, and remove its files."""
    Lab.load(folder.absolute()).down()


@main.command("status")
@folder_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(folder: Path, as_json: bool) -> None:  # noqa: FBT001 - click passes options by name
    """Show hosts, replicas and HAProxies."""
    state = Lab.load(folder.absolute()).status()
    if as_json:
        click.echo(json.dumps(state, indent=2))
        return
    console = Console(highlight=False)
    console.print(_table(state))
    console.print(f"application: {state.get('application', 'the lab does not run')}")


@main.command("run", context_settings={"ignore_unknown_options": True})
@folder_option
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(folder: Path, host: str, command: tuple[str, ...]) -> None:
    """Run COMMAND in HOST, such as 'run head serve status'."""
    lab = Lab.load(folder.absolute())
    arguments = [*lab.entering(host), *with_ray_env(command)]
    sys.exit(subprocess.run(arguments, env=lab.environment(host), check=False).returncode)


def _table(state: dict[str, Any]) -> Table:
    table = Table("host", "address", "processes", "memory", "HAProxy", "replicas")
    for host in state["hosts"]:
        replicas = [
            f"{replica['deployment']} ({replica['state']})"
            for replica in state.get("replicas", [])
            if replica["address"] == host["address"]
        ]
        table.add_row(
            host["name"],
            host["address"],
            str(host["processes"]),
            f"{host['memory_mib']:,} MiB",
            state.get("proxies", {}).get(host["address"], ""),
            "\n".join(replicas),
        )
    table.add_row("all", "", "", f"{state['memory_mib']:,} MiB", "", "")
    return table


if __name__ == "__main__":
    main(prog_name="python -m cluster.lab")
