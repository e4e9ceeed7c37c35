"""Deploy a Serve config file to a running cluster, as `serve deploy` does."""

from pathlib import Path

from ray.dashboard.modules.serve.sdk import ServeSubmissionClient
from ray.serve.schema import ServeDeploySchema

from serve_app.deployments.serve_config import read_serve_config


class DeployError(Exception):
    """The file was not deployed; the message says why, in one line."""


def deploy_file(path: Path, address: str) -> None:
    """Send the file to Ray's dashboard, which returns before replicas start.

    ``address``: its URL. A cluster with a token needs it in ``RAY_AUTH_TOKEN``.

    Raises: ConfigError, DeployError.
    """
    config = ServeDeploySchema.model_validate(read_serve_config(path))
    try:
        ServeSubmissionClient(address).deploy_applications(config.model_dump(exclude_unset=True))
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise DeployError(" ".join(str(error).split())) from error
