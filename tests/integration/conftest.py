"""A running service for most of the integration tests."""

from collections.abc import Iterator

import pytest

from serve_app.deployments.local_ray import free_port
from testkit.log_leaks import EVENTS_TOKEN
from testkit.otlp import OtlpReceiver, receiving
from testkit.service import Service, deployment, model, serve_config
from tests.support.event_sinks import Sink, listening


@pytest.fixture(scope="session")
def event_sink() -> Iterator[Sink]:
    """The receiver of the service's events."""
    with listening() as sink:
        yield sink


@pytest.fixture(scope="session")
def collector() -> Iterator[OtlpReceiver]:
    """The receiver of the service's traces."""
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def service(
    tmp_path_factory: pytest.TempPathFactory, event_sink: Sink, collector: OtlpReceiver
) -> Iterator[Service]:
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
            model("embedded", "embedded"),
            model("tiny", str(nan), deployment(2), price_micro_dollars_per_document=3),
            model("tiny-crash", str(crash)),
        ],
        deployment(2),
        request_timeout_s=30,
        request_timeout_s_max=90,
        reservation_margin_s=1,
        events_url=event_sink.url,
        events_token="env:EVENTS_TOKEN",
        traces="without_texts",
    )
    environment = {
        "EVENTS_TOKEN": EVENTS_TOKEN,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
        "OTEL_BSP_SCHEDULE_DELAY": "500",
    }
    service = Service.start(folder, config, free_port(), **environment)
    yield service
    assert service.stop() == 0
