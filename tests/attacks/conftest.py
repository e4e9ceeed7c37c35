"""A running service for the attacks, and well-behaved clients that they must not affect."""

import uuid
from collections.abc import Iterator

import httpx
import pytest

from serve_app.access.api_keys import SCOPE_ADMIN
from serve_app.deployments.local_ray import free_port
from serve_app.domain.model import RateLimits
from serve_app.domain.units import Credits
from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER
from testkit.service import Service, deployment, model, serve_config, wait_for

IDLE_S = 15.0
"""Time after which HAProxy closes an idle client's connection (``cluster/ray.env``)."""

BODY_TIMEOUT_S = 8.0
"""Longer than a gateway caches a key that was revoked."""

NO_KEY = "rk_0123456789ab_" + "f" * 64


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One gateway and one scorer with a small model."""
    from testkit.tiny_models import build  # noqa: PLC0415 - imports torch

    folder = tmp_path_factory.mktemp("attacked")
    config = serve_config(
        [model("tiny", str(build(folder / "model")))],
        deployment(1, max_ongoing_requests=20_000),
        body_timeout_s=BODY_TIMEOUT_S,
    )
    service = Service.start(folder, config, free_port())
    yield service
    assert service.stop() == 0


@pytest.fixture(scope="session")
def admin_key(service: Service) -> str:
    """Return an admin key of the operators' tenant."""
    return service.new_key("operators", Credits(0), SCOPE_ADMIN)


@pytest.fixture
def broke_key(service: Service) -> str:
    """Return a key of a tenant without credit that may send one request per minute.

    Each test has its own tenant, because attacks use up its budget of refused requests.
    """
    tenant = f"broke-{uuid.uuid4().hex}"
    return service.new_key(tenant, Credits(0), limits=RateLimits(requests_per_minute_max=1))


def rerank_body(*documents: str) -> dict[str, object]:
    return {"query": QUERY_MARKER, "documents": [DOCUMENT_MARKER, *documents]}


def everything_answers(service: Service, timeout_s: float = 2 * IDLE_S) -> None:
    """Check that clients, monitoring and Prometheus get answers on new connections."""
    with service.client(timeout_s) as client:
        mark = uuid.uuid4().hex
        missing = client.get(f"/{mark}")
        assert (missing.status_code, mark in missing.text) == (404, True)
        assert client.get("/health").status_code == 200
        # A gateway that its clients keep busy may take too long to probe a scorer.
        wait_for(lambda: client.get("/ready").status_code == 200, timeout_s, "readiness")
        assert client.post("/v1/rerank", json=rerank_body()).status_code == 200
        assert client.get("/v1/models").status_code == 200
    assert httpx.get(service.metrics_address, timeout=timeout_s).status_code == 200


def gateway_memory_bytes(service: Service) -> int:
    (gateway,) = service.replicas("rerank")
    return int(gateway.memory_info().rss)
