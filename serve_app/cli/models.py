"""``rerank-serve models``: what can be done with a model without serving it."""

from pathlib import Path

import click

from serve_app.domain.model import EMBEDDED


@click.group()
def models() -> None:
    """Models, apart from serving them."""


@models.command("export")
@click.argument("model")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def export(model: str, folder: Path) -> None:
    """Write MODEL, which must be 'embedded', into DIR, which must be new or empty.

    transformers and sentence-transformers load DIR as it is, and `source: DIR` serves it.
    """
    if model != EMBEDDED:
        raise click.ClickException(
            f"Only the model '{EMBEDDED}' is exported, not '{model}': "
            "the files of any other are where its source says."
        )
    try:
        if folder.exists() and any(folder.iterdir()):
            raise click.ClickException(f"'{folder}' is not empty; name a new folder.")
        _export(folder)
    except OSError as error:
        raise click.ClickException(f"'{folder}' cannot be written: {error}.") from None
    click.echo(f"The model '{EMBEDDED}' is in '{folder}'; its README.md says how to load it.")


def _export(folder: Path) -> None:
    from serve_app.engine.export import export_embedded  # noqa: PLC0415 - imports torch
    from serve_app.engine.sources import ModelLoadError  # noqa: PLC0415 - imports the hub's client

    try:
        export_embedded(folder)
    except ModelLoadError as error:
        raise click.ClickException(str(error)) from None
