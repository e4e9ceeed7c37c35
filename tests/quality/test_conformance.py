"""The service conforms to every family of clients, with the embedded model."""

from collections.abc import Iterator

import pytest

from conformance.check import Outcome
from conformance.families import FAMILIES
from conformance.run import run
from conformance.server import Target
from serve_app.access.api_keys import SCOPE_RERANK
from serve_app.domain.model import RateLimits
from serve_app.ledger.db.schema import migrate
from tests.support.app import LIMITS, MINI
from tests.support.embedded_app import embedded_app
from tests.support.http_server import listening
from tests.support.ledger_app import LedgerApp

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PREFIXES = {"infinity": "/infinity", "voyage": "/voyage"}
ORIGIN = "https://page.example"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerApp]:
    database_url = f"sqlite:///{tmp_path_factory.mktemp('conformance') / 'rerank.db'}"
    migrate(database_url)
    built = LedgerApp(database_url, embedded_app(cors_allowed_origins=(ORIGIN,)))
    built.ledger.start()
    yield built
    built.close()


@pytest.fixture(scope="module")
def address(app: LedgerApp) -> Iterator[str]:
    with listening(app.asgi) as found:
        yield found


@pytest.mark.parametrize("name", FAMILIES)
def test_every_check_of_the_family_passes(app: LedgerApp, address: str, name: str) -> None:
    tenant = app.add_tenant(name, 1_000_000)
    _, key = app.add_key(tenant, SCOPE_RERANK)
    _, limited_key = app.add_key(tenant, SCOPE_RERANK, limits=RateLimits(requests_per_minute_max=2))
    target = Target(
        base_url=address + PREFIXES.get(name, ""),
        model=MINI,
        api_key=key,
        limited_api_key=limited_key,
        documents_max=LIMITS.documents_per_request_max,
        usage_url=f"{address}/v1/usage",
        usage_field="charged_micro_dollars",
        origin=ORIGIN,
    )

    report = run(FAMILIES[name], target)

    assert report.passed >= 45
    unmet = report.of(Outcome.FAILED, Outcome.NOT_RUN)
    assert not unmet, "\n".join(map(str, unmet))
