"""The commands for tenants, keys, credit, usage and the audit log."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text

from serve_app.access.api_keys import matches, parse
from serve_app.cli.accounts import COMMANDS, bootstrap
from serve_app.domain.formats import dollars
from serve_app.domain.units import Credits, ModelId, Moment, RequestId, Seconds, Tokens
from serve_app.ledger.accounts import tenant_accounts, tenant_keys
from serve_app.ledger.db.engines import transaction
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.writer import maintenance
from serve_app.ports import Usage
from tests.support import postings
from tests.support.fakes import EMBEDDED, FakeClock

Run = Callable[..., Result]

TIMEOUT_S = Seconds(5)
JAN_2 = Moment(1_767_312_000_000)  # 2026-01-02 00:00 UTC


@pytest.fixture
def run(database_url: str) -> Run:
    """Return a function that runs a command on an empty database."""
    main = click.Group(commands=COMMANDS)

    def run(*words: str) -> Result:
        return CliRunner().invoke(main, words, env={"RERANK_DATABASE_URL": database_url})

    return run


def succeeds(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def fails(result: Result) -> str:
    """Return stderr, which must be one line, and check for exit code 1."""
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_a_new_tenant_may_spend_its_first_credit(run: Run) -> None:
    assert "$12.50" in succeeds(run("tenants", "add", "acme", "--credit", "12.50"))

    line = next(line for line in succeeds(run("tenants", "list")).splitlines() if "acme" in line)
    assert "$12.50" in line
    assert "tn_" in line


def test_a_name_in_brackets_is_shown_unchanged(run: Run) -> None:
    succeeds(run("tenants", "add", "[red]acme"))

    assert "[red]acme" in succeeds(run("tenants", "list"))


def test_a_tenant_name_is_unique(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))

    assert "a tenant named 'acme' already exists" in fails(run("tenants", "add", "acme"))
    assert "looks like that of the tenant 'acme'" in fails(run("tenants", "add", "ACME"))


def test_a_name_is_shown_in_its_stored_form(run: Run) -> None:
    assert "Tenant 'Acme Co'" in succeeds(run("tenants", "add", " Acme\u3000Co"))
    assert "Acme Co" in succeeds(run("tenants", "show", "Acme  Co"))


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        ("0", "must not be zero"),
        ("-5", "needs --correction"),
        ("nan", "not an amount"),
        ("inf", "not an amount"),
        ("1000000.000001", "exceeds $1,000,000"),
        ("1e99999999", "exceeds $1,000,000"),
        ("0.0000001", "more than 6 decimal places"),
        ("1e-99999999", "more than 6 decimal places"),
        ("five", "not an amount"),
        ("1,5", "not an amount"),
    ],
)
def test_an_amount_that_cannot_be_granted_is_refused(run: Run, typed: str, complaint: str) -> None:
    succeeds(run("tenants", "add", "acme"))

    assert complaint in fails(run("credit", "add", "acme", typed, "--reason", "test"))
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
    amounts = [0, 8, 10_000, 1_234_500_008, 1_500_000, -1_500_000]

    assert [dollars(each) for each in amounts] == [
        "$0.00",
        "$0.000008",
        "$0.01",
        "$1,234.500008",
        "$1.50",
        "-$1.50",
    ]


def test_a_new_key_is_shown_once_and_only_its_digest_is_stored(
    run: Run, database_url: str, tmp_path: Path
) -> None:
    succeeds(run("tenants", "add", "acme"))

    shown = succeeds(
        run("keys", "create", "acme", "--label", "ci", "--model", "small", "--expires-in-days", "7")
    ).strip()

    key = parse(shown)
    assert key is not None
    with transaction(database_url, TIMEOUT_S) as connection:
        stored = tenant_keys.find_keys(connection, [key.key_id]).get(key.key_id)
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
    succeeds(run("keys", "create", "acme", "--scope", "manage", "--scope", "rerank"))

    assert "manage, rerank" in succeeds(run("keys", "list"))


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
        (("keys", "rotate", "nothing"), "no key 'nothing'"),
        (("keys", "set-limits", "nothing", "--concurrent-requests", "1"), "no key 'nothing'"),
        (("tenants", "show", "nobody"), "no tenant 'nobody'"),
        (("tenants", "set-limits", "nobody", "--concurrent-requests", "1"), "no tenant 'nobody'"),
        (("credit", "list", "nobody"), "no tenant 'nobody'"),
        (("credit", "refund", "r9", "--reason", "x"), "no charge for request 'r9'"),
        (("credit", "add", "nobody", "1", "--reason", "test"), "no tenant 'nobody'"),
        (("usage", "--tenant", "nobody"), "no tenant 'nobody'"),
        (("tenants", "add", " "), "the name must have 1 to 128 characters"),
        (("tenants", "list", "--database-url", "mysql://x/y"), "not mysql"),
        (("tenants", "list", "--database-url", "sqlite:////dev/null/x.db"), "/dev/null"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else "",
)
def test_an_impossible_command_prints_one_line(
    run: Run, words: tuple[str, ...], complaint: str
) -> None:
    assert complaint in fails(run(*words))


@pytest.fixture
def used(run: Run, database_url: str) -> Run:
    """On 2 January, acme has a charge of 800 micro-dollars for 100 documents, and then a void."""
    succeeds(run("tenants", "add", "acme", "--credit", "1"))
    key = parse(succeeds(run("keys", "create", "acme")).strip())
    assert key is not None
    with transaction(database_url, TIMEOUT_S) as connection:
        acme = tenant_accounts.find_tenant(connection, "acme")
        for number, at in enumerate((JAN_2, Moment(JAN_2 + 5))):
            wanted = Reservation(
                RequestId(f"r{number}"), acme.id, key.key_id, EMBEDDED, Credits(800), at, at
            )
            usage = Usage(100, Tokens(5_000))
            postings.reserve(connection, wanted)
            if number == 0:
                postings.commit(connection, wanted.request_id, wanted.amount, usage, at)
            else:
                postings.void(connection, wanted.request_id, usage, at)
    return run


def test_usage_is_printed_as_a_table_in_dollars(used: Run) -> None:
    shown = succeeds(used("usage"))

    line = next(line for line in shown.splitlines() if "2026-01-02" in line)
    assert re.findall(r"[\d,.$]+", line)[3:] == ["2", "1", "200", "100", "10,000", "$0.0008"]
    assert "Total charged: $0.0008" in shown


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
def test_usage_for_programs_is_exact(used: Run, by: str, group: str) -> None:
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


def test_a_tenant_name_is_not_a_formula_in_csv(used: Run, database_url: str) -> None:
    with transaction(database_url, TIMEOUT_S) as connection:
        connection.execute(text("UPDATE tenants SET name = '=cmd' WHERE name = 'acme'"))

    (row,) = csv.DictReader(io.StringIO(succeeds(used("usage", "--by", "tenant", "--csv"))))

    assert row["tenant"] == "'=cmd"


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


def test_an_empty_database_gets_a_tenant_that_can_send_requests(tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path / 'new.db'}"
    first = bootstrap(database_url, FakeClock(), Credits(5_000_000))
    second = bootstrap(database_url, FakeClock(), Credits(5_000_000))

    assert first is not None
    key = parse(first)
    assert key is not None
    assert second is None
    with transaction(database_url, TIMEOUT_S) as connection:
        (dev,) = tenant_accounts.list_tenants(connection)
        stored = tenant_keys.find_keys(connection, [key.key_id]).get(key.key_id)
    assert (dev.name, dev.available) == ("dev", 5_000_000)
    assert stored is not None
    assert matches(key, stored.secret_sha256)
    assert stored.caller.scopes == {"rerank", "manage"}


def test_a_new_tenant_gets_the_free_credit_by_default(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_FREE_CREDIT_MICRO_DOLLARS", "2500000")

    assert "$2.50" in succeeds(run("tenants", "add", "acme"))
    assert "$0.00" in succeeds(run("tenants", "add", "bolt", "--credit", "0"))
    assert "$7.00" in succeeds(run("tenants", "add", "core", "--credit", "7"))
    assert "free credit" in succeeds(run("credit", "list", "acme"))
    assert "first credit" in succeeds(run("credit", "list", "core"))


def facts(shown: str) -> dict[str, str]:
    parts = (line.partition(":") for line in shown.splitlines())
    return {name: value.strip() for name, _, value in parts}


def test_limits_are_set_shown_and_removed_one_by_one(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))
    assert "for more" not in succeeds(
        run(
            "tenants", "set-limits", "acme", "--requests-per-minute", "600", "--monthly-budget", "5"
        )
    )
    succeeds(run("tenants", "set-limits", "acme", "--concurrent-requests", "0"))
    succeeds(run("tenants", "set-limits", "acme", "--requests-per-minute", "none"))
    succeeds(run("tenants", "set-limits", "acme", "--alert-below", "3", "--alert-below", "0.5"))

    shown = facts(succeeds(run("tenants", "show", "acme")))

    assert shown["Requests per minute"] == shown["Documents per minute"] == "none"
    assert (shown["Concurrent requests"], shown["Monthly budget"]) == ("0", "$5.00")
    assert shown["Alerts below"] == "$3.00, $0.50"
    succeeds(run("tenants", "set-limits", "acme", "--alert-below", "none"))
    assert facts(succeeds(run("tenants", "show", "acme")))["Alerts below"] == "none"


def test_the_limits_of_a_key_are_shown(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))
    key = parse(succeeds(run("keys", "create", "acme", "--label", "laptop")).strip())
    assert key is not None
    succeeds(run("keys", "set-limits", key.key_id, "--concurrent-requests", "3"))

    shown = facts(succeeds(run("keys", "show", key.key_id)))

    assert (shown["Key"], shown["Tenant"], shown["Label"]) == (key.key_id, "acme", "laptop")
    assert (shown["Concurrent requests"], shown["Monthly budget"]) == ("3", "none")
    assert "no key 'nothing'" in fails(run("keys", "show", "nothing"))


def test_a_key_is_renamed(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))
    key = succeeds(run("keys", "create", "acme", "--label", "laptop")).split("_")[1]

    assert "now has the label 'desktop'" in succeeds(run("keys", "set-label", key, "desktop"))

    assert facts(succeeds(run("keys", "show", key)))["Label"] == "desktop"
    assert "key.label" in succeeds(run("audit-log", "--tenant", "acme"))
    assert "printable characters" in fails(run("keys", "set-label", key, " "))
    assert "no key 'nothing'" in fails(run("keys", "set-label", "nothing", "desktop"))


def test_the_weight_of_a_tenant_is_set(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))
    assert facts(succeeds(run("tenants", "show", "acme")))["Weight"] == "1"

    assert "weight 3" in succeeds(run("tenants", "set-weight", "acme", "3"))

    assert facts(succeeds(run("tenants", "show", "acme")))["Weight"] == "3"
    assert "no tenant 'nobody'" in fails(run("tenants", "set-weight", "nobody", "3"))
    for absurd in ("0", "1001", "a"):
        assert run("tenants", "set-weight", "acme", absurd).exit_code == 2


@pytest.mark.parametrize(
    ("option", "typed", "complaint"),
    [
        ("--requests-per-minute", "-1", "not a non-negative integer"),
        ("--documents-per-minute", "1.5", "not a non-negative integer"),
        ("--concurrent-requests", "1e3", "not a non-negative integer"),
        ("--concurrent-requests", "9" * 16, "exceeds 1,000,000,000,000,000"),
        ("--concurrent-requests", "9" * 99, "not a non-negative integer"),
        ("--monthly-budget", "-1", "is negative"),
        ("--monthly-budget", "2000000", "exceeds $1,000,000"),
    ],
)
def test_an_invalid_limit_is_refused(run: Run, option: str, typed: str, complaint: str) -> None:
    succeeds(run("tenants", "add", "acme"))
    key = succeeds(run("keys", "create", "acme")).split("_")[1]

    for words in (
        ("tenants", "set-limits", "acme"),
        ("keys", "set-limits", key),
        ("keys", "create", "acme"),
    ):
        assert complaint in fails(run(*words, option, typed))


def test_the_limits_of_a_key_are_set_at_creation_and_later(run: Run, database_url: str) -> None:
    succeeds(run("tenants", "add", "acme"))
    key = parse(succeeds(run("keys", "create", "acme", "--documents-per-minute", "50")).strip())
    assert key is not None
    succeeds(run("keys", "set-limits", key.key_id, "--monthly-budget", "0.000008"))

    with transaction(database_url, TIMEOUT_S) as connection:
        limits = tenant_keys.get_key(connection, key.key_id).stored.caller.key_limits
    assert (limits.documents_per_minute_max, limits.monthly_budget_micro_dollars) == (50, 8)


def test_rotating_a_key_prints_the_end_of_the_old_one(run: Run, database_url: str) -> None:
    succeeds(run("tenants", "add", "acme"))
    old = parse(succeeds(run("keys", "create", "acme", "--label", "ci")).strip())
    assert old is not None

    result = run("keys", "rotate", old.key_id, "--overlap-hours", "0.5")

    new = parse(succeeds(result).strip())
    assert new is not None
    with transaction(database_url, TIMEOUT_S) as connection:
        replaced = tenant_keys.get_key(connection, old.key_id).stored
        made = tenant_keys.get_key(connection, new.key_id)
    assert replaced.expires_at == made.created_at + 1_800_000
    assert (made.replaces, made.label) == (old.key_id, "ci")
    assert "remains valid until" in result.stderr
    assert "was already replaced by" in fails(run("keys", "rotate", old.key_id))


@pytest.mark.parametrize("typed", ["-1", "2161", "nan", "inf"])
def test_an_absurd_overlap_is_refused(run: Run, typed: str) -> None:
    succeeds(run("tenants", "add", "acme"))
    key = succeeds(run("keys", "create", "acme")).split("_")[1]

    assert "the overlap must be" in fails(run("keys", "rotate", key, f"--overlap-hours={typed}"))


def test_the_list_of_keys_shows_their_last_use(run: Run, database_url: str) -> None:
    succeeds(run("tenants", "add", "acme"))
    key = parse(succeeds(run("keys", "create", "acme")).strip())
    assert key is not None
    assert "2026-01-02 00:00:00" not in succeeds(run("keys", "list"))

    with transaction(database_url, TIMEOUT_S) as connection:
        maintenance.touch_keys(connection, {key.key_id: JAN_2})

    assert "2026-01-02 00:00:00" in succeeds(run("keys", "list"))


def test_a_payment_entered_twice_is_granted_once(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))
    pay = ("credit", "add", "acme", "5", "--reason", "invoice 17", "--idempotency-key", "p9")

    assert "$5.00" in succeeds(run(*pay))
    assert "$5.00" in succeeds(run(*pay))
    other = [word if word != "5" else "6" for word in pay]
    assert "another grant" in fails(run(*other))


def test_a_correction_needs_its_option(run: Run) -> None:
    succeeds(run("tenants", "add", "acme", "--credit", "5"))
    why = ("--reason", "typo")

    assert "needs --correction" in fails(run("credit", "add", "acme", "-1.5", *why))
    assert "needs --correction" in fails(run("credit", "add", "acme", "1.5", *why, "--correction"))
    assert "less than that" in fails(run("credit", "add", "acme", "-6", *why, "--correction"))
    assert "$3.50" in succeeds(run("credit", "add", "acme", "-1.5", *why, "--correction"))
    line = next(x for x in succeeds(run("credit", "list", "acme")).splitlines() if "typo" in x)
    assert "-$1.50" in line
    assert "correction" in line


def test_a_charge_is_refunded_in_parts(used: Run) -> None:
    why = ("--reason", "sorry")

    assert "Refunded $0.0003" in succeeds(used("credit", "refund", "r0", "0.0003", *why))
    assert "has $1.00 available" in succeeds(used("credit", "refund", "r0", *why))
    assert "0 micro-dollars of the charge can be refunded" in fails(
        used("credit", "refund", "r0", *why)
    )
    assert "no charge for request 'r1'" in fails(used("credit", "refund", "r1", *why))
    assert "is negative" in fails(used("credit", "refund", "r0", "-1", *why))


def test_a_refund_entered_twice_is_given_once(used: Run) -> None:
    words = ("credit", "refund", "r0", "0.0003", "--reason", "sorry", "--idempotency-key", "t4")

    once, again = succeeds(used(*words)), succeeds(used(*words))

    assert again == once


def test_the_audit_log_lists_changes_with_their_author(run: Run) -> None:
    succeeds(run("tenants", "add", "acme", "--credit", "1"))
    succeeds(run("tenants", "add", "bolt"))
    succeeds(run("keys", "create", "acme", "--label", "ci"))

    def listed(*words: str) -> list[str]:
        return re.findall(r"tenant\.create|credit\.grant|key\.create", succeeds(run(*words)))

    assert listed("audit-log") == ["tenant.create", "credit.grant", "tenant.create", "key.create"]
    assert listed("audit-log", "--tenant", "bolt") == ["tenant.create"]
    assert "no tenant 'nobody'" in fails(run("audit-log", "--tenant", "nobody"))


def test_a_limit_command_without_limits_is_refused(run: Run) -> None:
    succeeds(run("tenants", "add", "acme"))

    assert "at least one limit" in fails(run("tenants", "set-limits", "acme"))
    assert "at least one limit" in fails(run("keys", "set-limits", "nothing"))
