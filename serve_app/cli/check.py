"""``rerank-serve check``: read a Serve config file as the service would."""

from pathlib import Path

import click

from serve_app.cli.up_config import read_config


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(config: Path) -> None:
    """Check the Serve config file CONFIG before `serve deploy`.

    It finds keys that Ray would ignore, invalid settings, and models without scorers. Variables
    such as RERANK_DATABASE_URL must be set.
    """
    _, service = read_config(config, None)
    for model in service.live.models:
        names = ", ".join([model.id, *model.aliases])
        click.echo(f"{names}: {model.checkpoint.source}, scored by '{model.application_name}'")
        if model.canary is not None:
            click.echo(
                f"{names}: canary {model.canary.checkpoint.source}, scored by "
                f"'{model.canary.application}' for {model.canary.share:.1%} of the tenants, "
                f"shadows of {model.canary.shadow_share:.1%} of the other requests"
            )
