"""Liveness and readiness are independent."""

import pytest

from serve_app.domain.model_card import Readiness
from tests.support.app import BIG, MINI, FakeApp


def test_the_health_route_has_no_dependencies() -> None:
    app = FakeApp(readiness=Readiness(ready=False, ledger=False, models=((MINI, False),)))

    assert app.send("GET", "/health", key=None).json() == {"status": "ok"}
    app.close()


@pytest.mark.parametrize(("ledger", "model"), [(False, True), (True, False)])
def test_not_ready_names_the_cause_and_retry_after(ledger: bool, model: bool) -> None:
    state = Readiness(ready=False, ledger=ledger, models=((MINI, model), (BIG, True)))
    app = FakeApp(readiness=state)

    answer = app.send("GET", "/ready", key=None)

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json() == {
        "ready": False,
        "ledger": ledger,
        "models": [{"id": "mini", "ready": model}, {"id": "acme/big", "ready": True}],
    }
    app.close()
