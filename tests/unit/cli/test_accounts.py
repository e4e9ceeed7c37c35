"""What an operator types, and what it says."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from serve_app.access.api_keys import matches, parse
from serve_app.cli.accounts import COMMANDS, bootstrap
from serve_app.cli.reports import dollars
from serve_app.domain.units import Credits, ModelId, Moment, RequestId, Seconds, Tokens
from serve_app.ledger import accounts, store, tenant_keys
from serve_app.ledger.database import transaction
from serve_app.ledger.rules import Reservation
from serve_app.ports import Usage
from tests.fakes import EMBEDDED, FakeClock

Run = Callable[..., Result]

TIMEOUT_S = Seconds(5)
JAN_2 = Moment(1_767_312_000_000)  # 2026-01-02 00:00 UTC


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'rerank.db'}"


@pytest.fixture
def run(database_url: str) -> Run:
    """The command, on an empty database."""
    main = click.Group(commands=COMMANDS)

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, words, env={"RERANK_DATABASE_URL": database_url})

    return run


def succeeds(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(result: Result) -> str:
    """One line on stderr and exit code 1."""
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_new_tenant_may_spend_its_first_credit(run: Run) -> None:
    assert "$12.50" in succeeds(run("tenants", "add", "acme", "--credit", "12.50"))

    line = next(line for line in succeeds(run("tenants", "list")).splitlines() if "acme" in line)
    assert "$12.50" in line
    assert "tn_" in line


def test_a_name_in_brackets_is_shown_as_it_is(run: Run) -> None:
    succeeds(run("tenants", "add", "[red]acme"))

    assert "[red]acme" in succeeds(run("tenants", "list"))


def test_a_name_is_used_once(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))

    assert "already a tenant 'acme'" in fails(run("tenants", "add", "acme"))


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("0", "above zero"),
        ("-5", "above zero"),
        ("nan", "above zero"),
        ("inf", "above zero"),
        ("1000000.000001", "over $1,000,000"),
        ("1e99999999", "over $1,000,000"),
        ("0.0000001", "more than 6 decimals"),
        ("1e-99999999", "more than 6 decimals"),
        ("five", "not an amount"),
        ("1,5", "not an amount"),
    ],
)
def test_an_amount_that_cannot_be_granted_is_refused(run: Run, typed: str, complaint: str) -> None:
    succeeds(run("tenants", "add", "acme"))

    result = run("credit", "add", "acme", typed, "--reason", "test")

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert "$0.00" in succeeds(run("tenants", "list"))


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("1000000", "$1,000,000.00"),
        ("0.000008", "$0.000008"),
        ("1.50", "$1.50"),
        ("1.0000000", "$1.00"),
        ("2e1", "$20.00"),
    ],
)
def test_credit_is_exact_to_the_micro_dollar(run: Run, typed: str, shown: str) -> None:
    succeeds(run("tenants", "add", "acme"))

    assert shown in succeeds(run("credit", "add", "acme", typed, "--reason", "test"))


def test_money_is_shown_with_at_least_two_decimals() -> None:
    amounts = [0, 8, 10_000, 1_234_500_008, 1_500_000]

    assert [dollars(each) for each in amounts] == [
        "$0.00",
        "$0.000008",
        "$0.01",
        "$1,234.500008",
        "$1.50",
    ]


def test_a_new_key_is_shown_once_and_only_its_digest_is_kept(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    succeeds(run("tenants", "add", "acme"))

    shown = succeeds(
        run("keys", "create", "acme", "--label", "ci", "--model", "small", "--expires-in-days", "7")
    ).strip()

    key = parse(shown)
    assert key is not None
    with transaction(database_url, TIMEOUT_S) as connection:
        stored = tenant_keys.find_key(connection, key.key_id)
    assert stored is not None
    assert matches(key, stored.secret_sha256)
    assert stored.caller.scopes == {"rerank"}
    assert stored.caller.models == frozenset({ModelId("small")})
    listed = succeeds(run("keys", "list", "--tenant", "acme"))
    assert key.key_id in listed
    assert key.secret not in listed
    for file in tmp_path.iterdir():
        assert key.secret.encode() not in file.read_bytes()


def test_a_key_may_have_several_scopes(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))
    succeeds(run("keys", "create", "acme", "--scope", "admin", "--scope", "rerank"))

    assert "admin, rerank" in succeeds(run("keys", "list"))


def test_a_revoked_key_is_listed_with_its_date(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))
    key = parse(succeeds(run("keys", "create", "acme")).strip())
    assert key is not None

    succeeds(run("keys", "revoke", key.key_id))

    line = next(line for line in succeeds(run("keys", "list")).splitlines() if key.key_id in line)
    assert len(re.findall(r"\d{4}-\d\d-\d\d", line)) == 2  # Created and revoked.


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("keys", "create", "nobody"), "no tenant 'nobody'"),
        (("keys", "list", "--tenant", "nobody"), "no tenant 'nobody'"),
        (("keys", "revoke", "nothing"), "no key 'nothing'"),
        (("credit", "add", "nobody", "1", "--reason", "test"), "no tenant 'nobody'"),
        (("usage", "--tenant", "nobody"), "no tenant 'nobody'"),
        (("tenants", "add", " "), "printable"),
        (("tenants", "list", "--database-url", "mysql://x/y"), "not on mysql"),
        (("tenants", "list", "--database-url", "sqlite:////dev/null/x.db"), "/dev/null"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_what_cannot_be_done_is_said_in_one_line(
    run: Run, words: tuple[str, ...], complaint: str
) -> None:
    assert complaint in fails(run(*words))


@pytest.fixture
def used(run: Run, database_url: str) -> Run:
    """acme was charged 800 micro-dollars for 100 documents on 2 January, and one void after it."""
    succeeds(run("tenants", "add", "acme", "--credit", "1"))
    key = parse(succeeds(run("keys", "create", "acme")).strip())
    assert key is not None
    with transaction(database_url, TIMEOUT_S) as connection:
        acme = accounts.find_tenant(connection, "acme")
        for number, at in enumerate((JAN_2, Moment(JAN_2 + 5))):
            wanted = Reservation(
                RequestId(f"r{number}"), acme.id, key.key_id, EMBEDDED, Credits(800), at, at
            )
            usage = Usage(100, Tokens(5_000))
            store.reserve(connection, wanted)
            if number == 0:
                store.commit(connection, wanted.request_id, wanted.amount, usage, at)
            else:
                store.void(connection, wanted.request_id, usage, at)
    return run


def test_usage_is_a_table_in_dollars(used: Run) -> None:
    shown = succeeds(used("usage"))

    line = next(line for line in shown.splitlines() if "2026-01-02" in line)
    assert re.findall(r"[\d,.$]+", line)[3:] == ["2", "1", "200", "100", "10,000", "$0.0008"]
    assert "Charged in all: $0.0008" in shown


@pytest.mark.parametrize(
    "words", [("usage", "--tenant", "acme"), ("tenants", "list"), ("keys", "list")], ids=" ".join
)
def test_a_report_does_not_wait_for_the_service(
    used: Run, database_url: str, words: tuple[str, ...]
) -> None:
    with transaction(database_url, TIMEOUT_S):  # Holds the write lock.
        succeeds(used(*words))


@pytest.mark.parametrize(
    ("by", "group"), [("day", "2026-01-02"), ("model", EMBEDDED), ("tenant", "acme")]
)
def test_usage_is_exact_for_programs(used: Run, by: str, group: str) -> None:
    record = {
        by: group,
        "requests": 2,
        "requests_not_charged": 1,
        "documents": 200,
        "documents_not_charged": 100,
        "tokens": 10_000,
        "charged_micro_dollars": 800,
    }

    as_json = json.loads(succeeds(used("usage", "--by", by, "--json")))
    as_csv = list(csv.DictReader(io.StringIO(succeeds(used("usage", "--by", by, "--csv")))))

    assert as_json == [record]
    assert as_csv == [{name: str(value) for name, value in record.items()}]


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (("--since", "2026-01-02"), 1),
        (("--until", "2026-01-02"), 0),
        (("--since", "2026-01-02", "--until", "2026-01-03", "--tenant", "acme"), 1),
        (("--since", "2026-01-02 00:00:01"), 0),
    ],
)
def test_usage_counts_days_in_utc(used: Run, words: tuple[str, ...], rows: int) -> None:
    assert len(json.loads(succeeds(used("usage", "--json", *words)))) == rows


def test_an_empty_database_gets_a_tenant_that_can_send_requests(database_url: str) -> None:
    first = bootstrap(database_url, FakeClock(), Credits(5_000_000))
    second = bootstrap(database_url, FakeClock(), Credits(5_000_000))

    key = parse(first)
    assert key is not None
    assert second is None
    with transaction(database_url, TIMEOUT_S) as connection:
        (dev,) = accounts.list_tenants(connection)
        stored = tenant_keys.find_key(connection, key.key_id)
    assert (dev.name, dev.available) == ("dev", 5_000_000)
    assert stored is not None
    assert matches(key, stored.secret_sha256)
