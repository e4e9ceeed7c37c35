"""Read a Serve config file strictly: Ray ignores unknown keys, so a typo would go unnoticed.

Ray's own schema defines the known keys. `serve_app.settings` checks the application's ``args``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from ray.serve.schema import RayActorOptionsSchema, ServeDeploySchema

OPAQUE = frozenset({"args", "user_config", "ray_actor_options", "policy_kwargs"})
"""Fields with content outside Serve's schema."""


class ConfigError(Exception):
    """The file cannot be used; the message says where and why."""


def read_serve_config(path: Path) -> dict[str, Any]:
    """Return the file's content after checking that Serve knows every key.

    Raises:
        ConfigError: The file is missing or not YAML, or has an unknown key or an invalid value.
    """
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
    """Yield dotted paths of the keys in ``config`` that ``schema`` (a pydantic model) lacks."""
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
    """Return the pydantic model inside ``annotation``, such as ``list[Model] | None``, if any."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((model for each in get_args(annotation) if (model := _nested_model(each))), None)
