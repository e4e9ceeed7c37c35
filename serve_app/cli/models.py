"""``rerank-serve models``: models that are not being served."""

from pathlib import Path

import click

from serve_app.domain.model import EMBEDDED
from serve_app.engine.sources import ModelLoadError, check_torch


@click.group()
def models() -> None:
    """Work with models without serving them."""


@models.command("export")
@click.argument("model")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def export(model: str, folder: Path) -> None:
    """Write MODEL, which must be 'embedded', to DIR, which must be new or empty.

    transformers and sentence-transformers can load DIR, and `source: DIR` serves it.
    """
    if model != EMBEDDED:
        raise click.ClickException(
            f"Only the model '{EMBEDDED}' can be exported, not '{model}': "
            "the files of other models are in their source."
        )
    try:
        if folder.exists() and any(folder.iterdir()):
            raise click.ClickException(f"'{folder}' is not empty; specify a new folder.")
        _export(folder)
    except OSError as error:
        raise click.ClickException(f"'{folder}' cannot be written: {error}.") from None
    click.echo(
        f"Exported the model '{EMBEDDED}' to '{folder}'. Its README.md explains how to load it."
    )


def _export(folder: Path) -> None:
    try:
        check_torch(EMBEDDED)
        from serve_app.engine.export import export_embedded  # noqa: PLC0415 - imports torch

        export_embedded(folder)
    except ModelLoadError as error:
        raise click.ClickException(str(error)) from None
