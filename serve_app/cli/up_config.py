"""What ``rerank-serve up`` runs: a Serve config file, with its models or with another one."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from serve_app.domain.model import EMBEDDED
from serve_app.settings import ModelSettings, Settings

NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._-]")
"""Characters of a folder's name or a hub id that are replaced in the id of its model."""


def read_config(path: Path, model: str | None) -> dict[str, Any]:
    """The Serve config file; with ``model``, if one is given, as its only model.

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
                f"The model '{model}' cannot be served under its name: it may have 256 characters, "
                "its last part 128, of which one must be an ASCII letter or digit."
            ) from None
    return config


def serve_only(
    name: str, application: Mapping[str, Any], models: Sequence[ModelSettings]
) -> dict[str, Any]:
    """``application`` with one model in place of ``models``, those that it has.

    The options of the default model's deployment carry over; the deployments of others go.

    Args:
        name: A hub id, a local folder or ``embedded``. The last part of it becomes the model's id,
            with ``-`` for characters that an id cannot have, and ``name`` itself an alias.

    Raises:
        ValueError: ``name`` cannot be an alias, or nothing of it can be an id.
    """
    # Absolute, since scorers run in other folders, but without following links, whose names count.
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
    """Find every model's files, or download them, so that a missing one is known before Ray runs.

    ``HF_HOME`` must be set.

    Raises: ClickException, which says in one line what is missing and what to do.
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
    """The only application of a Serve config file, and its settings.

    Raises: ClickException.
    """
    applications = config.get("applications") or []
    if len(applications) != 1:
        raise click.ClickException("The config file must have exactly one application.")
    try:
        return applications[0], Settings(**(applications[0].get("args") or {}))
    except ValueError as error:
        raise click.ClickException(f"The settings cannot be used. {error}") from None
