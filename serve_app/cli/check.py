"""``rerank-serve check``: read a Serve config file as the service would."""

from pathlib import Path

import click

from serve_app.cli.up_config import read_config
from serve_app.deployments.cards import read_card
from serve_app.engine.sources import ModelLoadError
from serve_app.settings.models import ModelSettings


@click.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(config: Path) -> None:
    """Check the Serve config file CONFIG before `serve deploy`.

    The check finds keys that Ray would ignore, invalid settings and model cards, and models without
    scorers. Variables such as RERANK_DATABASE_URL must be set.
    """
    _, service = read_config(config, None)
    for model in service.live.models:
        names = ", ".join([model.id, *model.aliases])
        click.echo(f"{names}: {model.checkpoint.source}, scored by '{model.application_name}'")
        if model.card is not None:
            click.echo(f"{names}: model card {model.card}, {_state_of_card(model)}")
        if model.canary is not None:
            click.echo(
                f"{names}: canary {model.canary.checkpoint.source}, scored by "
                f"'{model.canary.application}' for {model.canary.share:.1%} of the tenants, "
                f"shadows of {model.canary.shadow_share:.1%} of the other requests"
            )


def _state_of_card(model: ModelSettings) -> str:
    """Raises: ClickException."""
    if not Path(str(model.card)).expanduser().exists():
        return "which is not on this machine and was not checked"
    try:
        return f"which states: {', '.join(read_card(model)) or 'nothing'}"
    except ModelLoadError as error:
        raise click.ClickException(str(error)) from None
