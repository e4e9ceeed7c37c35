"""Read the Serve config file of ``rerank-serve up``; ``--model`` replaces the models in it."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from serve_app.domain.model import EMBEDDED
from serve_app.settings import ModelSettings, Settings

NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._-]")
"""Characters of a folder name or hub id that are replaced in the model id."""


def read_config(path: Path, model: str | None) -> dict[str, Any]:
    """Read a Serve config file. If ``model`` is given, it replaces the models in the file.

    Raises: ClickException.
    """
    from serve_app.deployments.serve_config import (  # noqa: PLC0415 - imports ray
        ConfigError,
        read_serve_config,
    )

    try:
        config = read_serve_config(path)
    except ConfigError as error:
        raise click.ClickException(str(error)) from None
    if model is not None:
        application, settings = application_of(config)
        try:
            config["applications"] = [serve_only(model, application, settings.models)]
        except ValueError:
            raise click.ClickException(
                f"The model '{model}' has an invalid name. It may have at most 256 characters, its "
                "last part at most 128, including an ASCII letter or digit."
            ) from None
    return config


def serve_only(
    name: str, application: Mapping[str, Any], models: Sequence[ModelSettings]
) -> dict[str, Any]:
    """Return ``application`` with one model instead of its ``models``.

    The model gets the options of the default model's deployment. Deployments of other models are
    removed.

    Args:
        name: A hub id, a local folder or ``embedded``. Its last part becomes the model id, with
            ``-`` for invalid characters, and ``name`` becomes an alias.

    Raises:
        ValueError: ``name`` is not a valid alias, or its last part yields no model id.
    """
    # Absolute, because scorers run in other folders. Links stay, because their names are used.
    folder = os.path.abspath(os.path.expanduser(name))
    source = folder if name != EMBEDDED and os.path.isdir(folder) else name
    model_id = NOT_IN_IDS.sub("-", Path(source).name).lstrip("._-")
    aliases = () if name == model_id else (name,)
    model = ModelSettings(id=model_id, aliases=aliases, source=source)
    default, *others = (each.deployment_name for each in models)
    return {
        **application,
        "args": {
            **(application.get("args") or {}),
            "models": [model.model_dump(mode="json", exclude_defaults=True)],
        },
        "deployments": [
            {**options, "name": model.deployment_name} if options["name"] == default else options
            for options in application.get("deployments") or []
            if options["name"] not in others
        ],
    }


def check_models(settings: Settings) -> None:
    """Find or download the files of every model, so that a missing one is known before Ray starts.

    ``HF_HOME`` must be set.

    Raises: ClickException with one line that names the problem and the remedy.
    """
    from serve_app.engine.sources import (  # noqa: PLC0415 - reads HF_HOME when imported
        ModelLoadError,
        resolve,
    )

    for model in settings.models:
        try:
            resolve(model.source, model.revision)
        except ModelLoadError as error:
            raise click.ClickException(f"The service cannot start. {error}.") from None


def application_of(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Settings]:
    """Return the only application of a Serve config file, and its settings.

    Raises: ClickException.
    """
    applications = config.get("applications") or []
    if len(applications) != 1:
        raise click.ClickException("The config file must contain exactly one application.")
    try:
        return applications[0], Settings(**(applications[0].get("args") or {}))
    except ValueError as error:
        raise click.ClickException(f"The settings are invalid. {error}") from None
