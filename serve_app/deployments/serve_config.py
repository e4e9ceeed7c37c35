"""Read a Serve config file strictly: Ray ignores unknown keys, so a typo would go unnoticed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import yaml
from ray.serve.schema import RayActorOptionsSchema, ServeDeploySchema

from serve_app.settings import GATEWAY
from serve_app.settings.gateway import Settings
from serve_app.settings.live import LiveSettings
from serve_app.settings.models import ModelSettings
from serve_app.settings.scorer import ScorerSettings

OPAQUE = frozenset({"args", "user_config", "ray_actor_options", "policy_kwargs"})
"""Fields with content outside Serve's schema."""


class ConfigError(Exception):
    """The file cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """The settings in a Serve config file."""

    settings: Settings
    live: LiveSettings
    scorers: Mapping[str, ScorerSettings]
    """By application."""


def settings_in(config: Mapping[str, Any]) -> ServiceConfig:
    """Raises: ConfigError, also if a model's scorers are missing or have another checkpoint."""
    gateways = gateways_in(config)
    try:
        found = ServiceConfig(
            Settings(**(gateways.get("args") or {})),
            LiveSettings(**(gateway_options(gateways).get("user_config") or {})),
            {
                each["name"]: ScorerSettings(**(each.get("args") or {}))
                for each in config["applications"]
                if each is not gateways
            },
        )
    except ValueError as error:
        raise ConfigError(f"The settings are invalid. {error}") from None
    for model in found.live.models:
        _check_scorers(f"model '{model.id}'", model, found.scorers)
        if model.as_canary is not None:
            _check_scorers(f"canary of the model '{model.id}'", model.as_canary, found.scorers)
    return found


def _check_scorers(what: str, model: ModelSettings, scorers: Mapping[str, ScorerSettings]) -> None:
    name = model.application_name
    if name not in scorers:
        raise ConfigError(f"The {what} has no application '{name}' with its scorers.")
    if scorers[name].checkpoint != model.checkpoint:
        raise ConfigError(
            f"The checkpoint of the {what} differs from that of the application '{name}'."
        )


def gateways_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the application with a deployment ``gateway``. Raises: ConfigError."""
    found: list[dict[str, Any]] = [
        application
        for application in config.get("applications") or []
        if any(each["name"] == GATEWAY for each in application.get("deployments") or [])
    ]
    if len(found) != 1:
        raise ConfigError(f"Exactly one application must have a deployment '{GATEWAY}'.")
    return found[0]


def gateway_options(application: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = next(
        each for each in application["deployments"] if each["name"] == GATEWAY
    )
    return options


def read_serve_config(path: Path) -> dict[str, Any]:
    """Raises: ConfigError, also for a key that Serve does not know."""
    try:
        config = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: is not a mapping")
    unknown = list(unknown_keys(config, ServeDeploySchema))
    if unknown:
        raise ConfigError(f"{path}: unknown to Serve: {', '.join(unknown)}")
    try:
        ServeDeploySchema.model_validate(config)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error
    return config


def unknown_keys(config: object, schema: Any, path: str = "") -> Iterator[str]:
    """Yield dotted paths of the keys that ``schema``, a pydantic model, lacks."""
    if isinstance(config, list):
        for index, each in enumerate(config):
            yield from unknown_keys(each, schema, f"{path}[{index}]")
    elif isinstance(config, dict):
        for key, value in config.items():
            where = f"{path}.{key}" if path else str(key)
            field = schema.model_fields.get(key)
            if field is None:
                yield where
            elif key == "ray_actor_options":
                known = RayActorOptionsSchema.model_fields
                yield from (f"{where}.{option}" for option in value or {} if option not in known)
            elif key not in OPAQUE and (nested := _nested_model(field.annotation)) is not None:
                yield from unknown_keys(value, nested, where)


def _nested_model(annotation: Any) -> Any:
    """Return the pydantic model inside ``annotation``, if any."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((model for each in get_args(annotation) if (model := _nested_model(each))), None)
