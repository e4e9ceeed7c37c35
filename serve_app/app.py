"""The composition root: build the Serve application from the ``args`` of a Serve config.

A Serve config file refers to `build` as ``import_path: serve_app.app:build``.
"""

from typing import Any

from ray.serve import Application, Deployment

from serve_app.deployments.gateway import Gateway
from serve_app.deployments.scorer import Scorer
from serve_app.engine.limits import EngineLimits
from serve_app.settings import GATEWAY_DEPLOYMENT, ModelSettings, Settings


def build(args: dict[str, Any]) -> Application:
    """Return the gateway deployment, bound to one scorer deployment per model.

    Args:
        args: Fields of `serve_app.settings.Settings`.

    Raises:
        pydantic.ValidationError: A setting is unknown, invalid, or conflicts with the others.
    """
    settings = Settings(**args)
    # Resolve these here, because gateways and scorers start in other folders and processes.
    settings = settings.model_copy(
        update={
            "var_dir": settings.var_dir.absolute(),
            "database_url": settings.resolved_database_url,
        }
    )
    scorers = {model.id: _scorer(settings, model) for model in settings.models}
    return _named(Gateway, GATEWAY_DEPLOYMENT).bind(settings, scorers)


def _scorer(settings: Settings, model: ModelSettings) -> Application:
    limits = EngineLimits(
        batch_tokens_max=settings.batch_tokens_max,
        forward_tokens_max=settings.forward_tokens_max,
        pair_tokens_max=model.pair_tokens_max,
        threads=settings.scorer_threads,
    )
    scorer = _named(Scorer, model.deployment_name)
    return scorer.bind(model, limits, settings.portion_tokens_max, settings.var_dir / "engine")


def _named(deployment: Any, name: str) -> Deployment:
    return deployment.options(name=name)
