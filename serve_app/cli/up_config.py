"""Read a Serve config file; ``--model`` replaces the models in it."""

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app.domain.model import EMBEDDED
from serve_app.engine.sources import ModelLoadError, resolve
from serve_app.settings.models import Checkpoint, ModelSettings

if TYPE_CHECKING:
    from serve_app.deployments.serve_config import ServiceConfig

NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._-]")
"""Characters that are replaced in a model id made from a folder name or hub id."""


def read_config(path: Path, model: str | None) -> tuple[dict[str, Any], "ServiceConfig"]:
    """Return the content of a Serve config file, and its settings. Raises: ClickException."""
    from serve_app.deployments.serve_config import (  # noqa: PLC0415 - imports ray
        ConfigError,
        read_serve_config,
        settings_in,
    )

    try:
        config = read_serve_config(path)
        if model is not None:
            config["applications"] = serve_only(model, config)
        return config, settings_in(config)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def serve_only(name: str, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the applications of ``config`` with one model, scored like the default model.

    The last part of ``name`` (a hub id, a folder or ``embedded``) becomes the model id, with ``-``
    for invalid characters, and ``name`` an alias.

    Raises: ClickException, ConfigError.
    """
    from serve_app.deployments.serve_config import (  # noqa: PLC0415 - imports ray
        gateway_options,
        gateways_in,
        settings_in,
    )

    model = _only_model(name)
    default = settings_in(config).live.models[0].application_name
    (scorers,) = (each for each in config["applications"] if each["name"] == default)
    gateways = gateways_in(config)
    options = gateway_options(gateways)
    wire = model.model_dump(mode="json", exclude_defaults=True)
    live = {**(options.get("user_config") or {}), "models": [wire]}
    return [
        {
            **scorers,
            "name": model.application_name,
            "args": {**scorers["args"], "checkpoint": wire["checkpoint"]},
        },
        {**gateways, "deployments": [{**options, "user_config": live}]},
    ]


def _only_model(name: str) -> ModelSettings:
    # Absolute, because scorers run in other folders. Links stay, because their names are used.
    folder = os.path.abspath(os.path.expanduser(name))
    source = folder if name != EMBEDDED and os.path.isdir(folder) else name
    model_id = NOT_IN_IDS.sub("-", Path(source).name).lstrip("._-")
    aliases = () if name == model_id else (name,)
    try:
        return ModelSettings(id=model_id, aliases=aliases, checkpoint=Checkpoint(source=source))
    except ValueError:
        raise click.ClickException(
            f"The model '{name}' has an invalid name. It may have at most 256 characters, its "
            "last part at most 128, including an ASCII letter or digit."
        ) from None


def check_models(models: Iterable[ModelSettings]) -> None:
    """Find or download the files of every model before Ray starts. ``HF_HOME`` must be set.

    Raises: ClickException.
    """
    for each in (revision.checkpoint for model in models for revision in model.revisions):
        try:
            resolve(each.source, each.revision)
        except ModelLoadError as error:
            raise click.ClickException(f"The service cannot start. {error}.") from None
