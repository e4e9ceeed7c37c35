"""The ledger's commands: what they read, and what they say of it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from serve_app.cli.books import ledger
from serve_app.domain.units import Credits, Moment, RequestId, Tokens
from serve_app.ledger import store
from serve_app.ledger.database import transaction
from serve_app.ledger.rules import Reservation
from serve_app.ports import Usage
from tests.fakes import EMBEDDED
from tests.unit.ledger.support import TIMEOUT_S, a_tenant

NOON = Moment(1_767_355_200_000)  # 2026-01-02 12:00 UTC
DAY = "2026-01-02"
PRICE = Credits(800)


@pytest.fixture
def charged_url(database_url: str) -> str:
    """Books in which one request was charged."""
    acme = a_tenant(database_url, PRICE)
    wanted = Reservation(RequestId("r1"), acme.tenant, acme.key_id, EMBEDDED, PRICE, NOON, NOON)
    with transaction(database_url, TIMEOUT_S) as connection:
        store.reserve(connection, wanted)
        store.commit(connection, wanted.request_id, PRICE, Usage(100, Tokens(5_000)), NOON)
    return database_url


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A folder like Ray's, in which the newest session has a second name."""
    session = tmp_path / "ray" / "session_2026-01-02"
    session.mkdir(parents=True)
    (session.parent / "session_latest").symlink_to(session)
    line = {
        "event": "rerank_request",
        "id": "r1",
        "status": 200,
        "duration_s": 0.01,
        "key_id": "key-of-acme",
        "documents": 100,
        "model": EMBEDDED,
        "tokens": 5_000,
        "charge_micro_dollars": PRICE,
        "timestamp_ns": NOON * 1_000_000,
    }
    (session / "gateway.log").write_text(json.dumps(line) + "\n", encoding="utf-8")
    return session.parent


def reconcile(url: str, *logs: str) -> str:
    words = ["reconcile", "--day", DAY, "--database-url", url]
    for each in logs:
        words += ["--logs", each]
    result = CliRunner().invoke(ledger, words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_log_with_two_names_is_read_once(charged_url: str, logs: Path) -> None:
    reconcile(charged_url, f"{logs}/session_*/gateway*.log", f"{logs}/session_latest/*")


def test_a_log_that_is_not_there_is_told(charged_url: str, logs: Path) -> None:
    with pytest.raises(AssertionError, match="no such log file"):
        reconcile(charged_url, f"{logs}/session_*/none*.log")
