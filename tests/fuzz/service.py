"""The service for the fuzzer: the embedded model, and keys and accounts in real ledgers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from serve_app.access import api_keys
from serve_app.access.authenticator import Authenticator
from serve_app.admission.refusals import RefusalBudget
from serve_app.domain.units import Credits, Instant, Moment, Seconds
from serve_app.http.app import build_app
from serve_app.ledger.accounts import credit_grants, tenant_accounts, tenant_keys
from serve_app.ledger.back_office import BackOffice
from serve_app.ledger.db.audit_log import AuditContext
from serve_app.ledger.db.backup import back_up
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.sql_ledger import SqlLedger
from tests.support.embedded_app import embedded_app
from tests.support.fakes import FakeClock
from tests.support.http_server import listening

TIMEOUT_S = Seconds(5)
CREDIT = Credits(10**15)


class RunningClock(FakeClock):
    """A clock that runs ``speed`` times as fast as the real one."""

    def __init__(self, speed: int = 1) -> None:
        super().__init__()
        self._speed = speed
        self._started = time.monotonic()

    def instant(self) -> Instant:
        return Instant(self.now_s + (time.monotonic() - self._started) * self._speed)

    def moment(self) -> Moment:
        return Moment(int(self.instant() * 1_000))


@contextmanager
def serving(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the address of a running service, and a key for scoring and for accounts.

    The routes of accounts change a copy of the database with that key, so the fuzzer cannot revoke
    it or take all credit.
    """
    of_key, of_accounts = (f"sqlite:///{folder / name}" for name in ("key.db", "accounts.db"))
    clock = RunningClock()
    migrate(of_key)
    key = _add_key(of_key, clock)
    back_up(of_key, folder / "accounts.db", TIMEOUT_S)
    migrate(of_accounts)
    ledger = SqlLedger(of_key, clock, Seconds(30))
    office = BackOffice(of_accounts, TIMEOUT_S)
    app = embedded_app(clock=clock)
    ledger.start()
    service = replace(
        app.service,
        pipeline=replace(app.service.pipeline, ledger=ledger),
        access=Authenticator(ledger, clock, app.service.metrics, Seconds(5)),
        office=office,
        # The fuzzer is one tenant, and most of its requests are refused.
        refusal_budget=RefusalBudget(RunningClock(speed=1_000)),
    )
    try:
        with listening(build_app(service)) as address:
            yield address, key
    finally:
        ledger.close()
        office.close()
        app.close()


def _add_key(database_url: str, clock: FakeClock) -> str:
    key = api_keys.generate()
    new = tenant_keys.NewKey(
        key.key_id, key.secret_sha256, "fuzz", set(api_keys.SCOPES), None, None
    )
    audit = AuditContext("fuzz", clock.moment())
    with transaction(database_url, TIMEOUT_S) as connection:
        tenant = tenant_accounts.create_tenant(connection, "fuzz", audit).id
        credit_grants.grant(connection, tenant, CREDIT, "fuzz", audit)
        tenant_keys.create_key(connection, tenant, new, audit)
    return key.reveal()
