"""The commands of ``rerank-serve ledger``."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import text

from serve_app.cli.books import ledger
from serve_app.domain.units import Credits, Moment, RequestId, Tokens
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.money.reservation import Reservation
from serve_app.ports import Usage
from tests.support import postings
from tests.support.fakes import EMBEDDED
from tests.support.ledger import TIMEOUT_S, a_tenant

NOON = Moment(1_767_355_200_000)  # 2026-01-02 12:00 UTC
DAY = "2026-01-02"
PRICE = Credits(800)


@pytest.fixture
def charged_url(database_url: str) -> str:
    """Return the URL of a ledger with one charge."""
    acme = a_tenant(database_url, PRICE)
    wanted = Reservation(RequestId("r1"), acme.tenant, acme.key_id, EMBEDDED, PRICE, NOON, NOON)
    with transaction(database_url, TIMEOUT_S) as connection:
        postings.reserve(connection, wanted)
        postings.commit(connection, wanted.request_id, PRICE, Usage(100, Tokens(5_000)), NOON)
    return database_url


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Return a folder like Ray's, with a link to the newest session."""
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


def test_a_missing_log_is_reported(charged_url: str, logs: Path) -> None:
    with pytest.raises(AssertionError, match="no log file matches"):
        reconcile(charged_url, f"{logs}/session_*/none*.log")


def ledger_command(url: str, *words: str) -> str:
    """Run a command that must fail, and return its error message, which must be one line."""
    result = CliRunner().invoke(ledger, [*words, "--database-url", url])
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_no_command_creates_a_ledger(tmp_path: Path) -> None:
    folder = tmp_path / "var"

    message = ledger_command(f"sqlite:///{folder}/rerank.db", "reconcile")

    assert f"the ledger {folder}/rerank.db does not exist" in message
    assert "RERANK_DATABASE_URL" in message
    assert not folder.exists()


def test_no_command_creates_tables(tmp_path: Path) -> None:
    (tmp_path / "other.db").touch()

    assert "no ledger tables" in ledger_command(f"sqlite:///{tmp_path}/other.db", "reconcile")
    assert (tmp_path / "other.db").read_bytes() == b""


@pytest.mark.parametrize(
    ("revision", "message"),
    [("v0002", "of an older version"), ("v9999", "belongs to a newer version")],
)
def test_no_command_changes_tables_of_another_version(
    database_url: str, revision: str, message: str
) -> None:
    with transaction(database_url, TIMEOUT_S) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": revision})

    assert message in ledger_command(database_url, "reconcile")
    with transaction(database_url, TIMEOUT_S) as connection:
        found = connection.scalar(text("SELECT version_num FROM alembic_version"))
    assert found == revision


def test_migrate_creates_the_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/var/rerank.db"

    for _ in range(2):
        result = CliRunner().invoke(ledger, ["migrate", "--database-url", url])
        assert result.exit_code == 0, result.output

    reconcile(url)
