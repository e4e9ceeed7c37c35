"""The composition root: build the two kinds of Serve application of a config file.

    gateways   ``import_path: serve_app.app:gateways``, once
    scorer     ``import_path: serve_app.app:scorer``, once per model and canary

Ray replaces all replicas of an application whose ``args`` change. So each model has an application
of its own, and settings that may change in running gateways are their ``user_config``.
"""

from typing import Any

from ray.serve import Application

from serve_app.deployments.gateway import Gateway
from serve_app.deployments.scorer import Scorer
from serve_app.settings import GATEWAY, SCORER
from serve_app.settings.gateway import Settings
from serve_app.settings.scorer import ScorerSettings


def gateways(args: dict[str, Any]) -> Application:
    """Return the gateway deployment. It needs `LiveSettings` as its ``user_config``.

    ``args`` are the fields of `Settings`. Raises: pydantic.ValidationError.
    """
    settings = Settings(**args)
    # Resolve these here, because replicas start in other folders and processes.
    update = {
        "var_dir": settings.var_dir.absolute(),
        "database_url": settings.resolved_database_url,
    }
    return _bound(Gateway, GATEWAY, settings.model_copy(update=update))


def scorer(args: dict[str, Any]) -> Application:
    """Return the scorer deployment of one model, whose ``args`` are `ScorerSettings`.

    Raises: pydantic.ValidationError.
    """
    settings = ScorerSettings(**args)
    update = {"var_dir": settings.var_dir.absolute()}
    return _bound(Scorer, SCORER, settings.model_copy(update=update))


def _bound(deployment: Any, name: str, settings: Settings | ScorerSettings) -> Application:
    application: Application = deployment.options(name=name).bind(settings)
    return application
