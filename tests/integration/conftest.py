"""A running service for most of the integration tests."""

from collections.abc import Iterator
from typing import Any

import pytest

from serve_app.deployments.local_ray import free_port
from testkit.service import Service
from tests.support.event_sinks import Sink, listening
from tests.support.log_leaks import EVENTS_TOKEN


def deployment(name: str, replicas: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "num_replicas": replicas,
        "max_ongoing_requests": 256,
        "ray_actor_options": {"num_cpus": 0.1},
        "health_check_period_s": 1,
        "graceful_shutdown_timeout_s": 2,
    } | more


def serve_config(
    models: list[dict[str, Any]], deployments: list[dict[str, Any]], **settings: Any
) -> dict[str, Any]:
    return {
        "http_options": {"host": "0.0.0.0"},  # noqa: S104 - as HAProxy always does
        "logging_config": {"encoding": "JSON", "enable_access_log": False},
        "applications": [
            {
                "name": "rerank",
                "route_prefix": "/",
                "import_path": "serve_app.app:build",
                "args": {"models": models} | settings,
                "deployments": deployments,
            }
        ],
    }


@pytest.fixture(scope="session")
def event_sink() -> Iterator[Sink]:
    """The receiver of the service's events."""
    with listening() as sink:
        yield sink


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, event_sink: Sink) -> Iterator[Service]:
    """Two gateways, and the models ``embedded``, ``tiny`` (with two scorers) and ``tiny-crash``.

    For a poisonous word, ``tiny`` returns NaN and ``tiny-crash`` raises an error.
    """
    from testkit.tiny_models import (  # noqa: PLC0415 - imports torch
        build_poison_crash,
        build_poison_nan,
    )

    folder = tmp_path_factory.mktemp("service")
    nan, crash = build_poison_nan(folder / "nan"), build_poison_crash(folder / "crash")
    config = serve_config(
        [
            {"id": "embedded", "source": "embedded"},
            {"id": "tiny", "source": str(nan), "price_micro_dollars_per_document": 3},
            {"id": "tiny-crash", "source": str(crash)},
        ],
        [
            deployment("gateway", 2),
            deployment("scorer-embedded", 1),
            deployment("scorer-tiny", 2),
            deployment("scorer-tiny-crash", 1),
        ],
        request_timeout_s=30,
        request_timeout_s_max=90,
        reservation_margin_s=1,
        events_url=event_sink.url,
        events_token="env:EVENTS_TOKEN",
    )
    service = Service.start(folder, config, free_port(), EVENTS_TOKEN=EVENTS_TOKEN)
    yield service
    assert service.stop() == 0
