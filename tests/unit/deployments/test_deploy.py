"""A config file is sent to Ray's dashboard, and a refusal is reported."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from serve_app.deployments.deploy import DeployError, deploy_file
from tests.support.http_server import listening

LOCAL = Path(__file__).parents[3] / "cluster/local.yaml"
VERSION = {"version": "4", "ray_version": ray.__version__, "ray_commit": "x"}


class Dashboard:
    """The routes of Ray's dashboard that a deployment uses."""

    def __init__(self) -> None:
        self.deployed: list[dict[str, Any]] = []
        self.answer: Callable[[], Response] = lambda: Response(status_code=200)
        self.app = Starlette(
            routes=[
                Route("/api/ray/version", lambda _: JSONResponse(VERSION)),
                Route("/api/serve/applications/", self._deploy, methods=["PUT"]),
            ]
        )

    async def _deploy(self, request: Request) -> Response:
        self.deployed.append(json.loads(await request.body()))
        return self.answer()


@pytest.fixture
def dashboard() -> Dashboard:
    return Dashboard()


@pytest.fixture
def address(dashboard: Dashboard) -> Iterator[str]:
    with listening(dashboard.app) as address:
        yield address


def test_the_dashboard_gets_what_the_file_says(dashboard: Dashboard, address: str) -> None:
    deploy_file(LOCAL, address)

    (sent,) = dashboard.deployed
    file = yaml.safe_load(LOCAL.read_text())
    assert [each["name"] for each in sent["applications"]] == ["embedded", "rerank"]
    gateways, expected = (config["applications"][1]["deployments"][0] for config in (sent, file))
    assert gateways == expected


def test_the_reason_of_a_refusal_is_one_line(dashboard: Dashboard, address: str) -> None:
    dashboard.answer = lambda: PlainTextResponse("no such\nimport path", 400)

    with pytest.raises(DeployError, match="no such import path") as refusal:
        deploy_file(LOCAL, address)

    assert "\n" not in str(refusal.value)


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(DeployError, match="http://"):
        deploy_file(LOCAL, "127.0.0.1:8265")
