"""A monthly statement is exact and has the same bytes at any time and on both databases."""

import csv
import io
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, insert

from serve_app.domain.units import Moment, Seconds
from serve_app.ledger.accounts import tenant_accounts
from serve_app.ledger.accounts.tenant_accounts import AccountProblem
from serve_app.ledger.db.engines import open_writer, opened, reading
from serve_app.ledger.db.tables import api_keys, charges, grants, reservations, tenants, usage_days
from serve_app.ledger.reports import monthly_statement
from serve_app.ledger.reports.balances import check_balances
from serve_app.ledger.reports.monthly_statement import Statement, render_csv, render_html
from serve_app.ledger.writer.retention import step
from tests.support.ledger import TIMEOUT_S

NOVEMBER = 202611
TENANT = "tn_1"
MODELS = ("alpha", "Zeta", "a-b", "a_b", "ä")
"""Names that the databases sort differently."""


def at(text: str) -> Moment:
    return Moment(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000))


LATER = at("2026-12-05")
GRANTS = (
    ("gr_1", 20_000_000, "first credit", "2026-09-30T12:00", "grant", None),
    ("gr_2", 5_000_000, 'invoice "17", <b>paid</b>', "2026-11-01T00:00", "grant", None),
    ("gr_b", 8, "=HYPERLINK()", "2026-11-30T23:59:59.999", "refund", "rr_5"),
    ("gr_a", -1_000_001, "typed twice", "2026-11-30T23:59:59.999", "correction", None),
    ("gr_3", 7, "December's", "2026-12-01T00:00", "grant", None),
)
CHARGES = (
    ("2026-10-31T23:59:59.999", 0, 1, 60, 8),
    ("2026-11-01T00:00", 0, 10, 600, 80),
    ("2026-11-01T12:00", 1, 1_000, 65_000, 8_000),
    ("2026-11-01T23:59:59.999", 2, 3, 200, 24),
    ("2026-11-15T08:00", 3, 4, 250, 3_000_000),
    ("2026-11-15T08:01", 4, 5, 300, 40),
    ("2026-11-15T08:02", 3, 6, 350, 0),
    ("2026-12-01T00:00", 0, 7, 400, 56),
)
VOIDED = (("2026-11-15T09:00", 3, 50, 3_000), ("2026-11-20T09:00", 0, 0, 0))


def fill(engine: Engine) -> None:
    left = sum(each[1] for each in GRANTS) - sum(each[4] for each in CHARGES)
    account = {"id": TENANT, "name": "Müller & Söhne", "available": left, "created_at": 0}
    other = {"id": "tn_2", "name": "other", "available": 0, "created_at": 0}
    with engine.begin() as connection:
        connection.execute(insert(tenants), [account, other])
        keys = [{"id": f"k{n}", "tenant_id": f"tn_{n}"} for n in (1, 2)]
        same: dict[str, Any] = {"label": "l", "secret_sha256": bytes(32), "scopes": []}
        connection.execute(insert(api_keys), [each | same | {"created_at": 0} for each in keys])
        for grant_id, amount, reason, time, kind, request_id in GRANTS:
            connection.execute(
                insert(grants),
                {
                    "id": grant_id,
                    "tenant_id": TENANT,
                    "amount": amount,
                    "reason": reason,
                    "granted_by": "tester",
                    "created_at": at(time),
                    "kind": kind,
                    "request_id": request_id,
                },
            )
        for number, (time, model, documents, tokens, amount) in enumerate(CHARGES):
            row = used(1, model, documents, tokens)
            ours = {"request_id": f"rr_{number}", "amount": amount, "charged_at": at(time)}
            connection.execute(insert(charges), row | ours)
        theirs = {"request_id": "rr_other", "amount": 0, "charged_at": at("2026-11-02")}
        connection.execute(insert(charges), used(2, 0, 99, 999) | theirs)
        for number, (time, model, documents, tokens) in enumerate(VOIDED):
            ended: dict[str, Any] = {"state": "voided", "settled_at": at(time), "charged": 0}
            row = used(1, model, documents, tokens) | {"id": f"v{number}", "amount": 9}
            times = {"created_at": at(time), "expires_at": at(time)}
            connection.execute(insert(reservations), row | ended | times)
        assert check_balances(connection) == []


def used(number: int, model: int, documents: int, tokens: int) -> dict[str, Any]:
    return {
        "tenant_id": f"tn_{number}",
        "key_id": f"k{number}",
        "model": MODELS[model],
        "documents": documents,
        "tokens": tokens,
    }


@pytest.fixture
def month(engine: Engine) -> Engine:
    fill(engine)
    return engine


@pytest.fixture
def twin(migrated_file: Path, tmp_path: Path) -> Iterator[Engine]:
    """The same month in a separate SQLite file."""
    path = shutil.copy(migrated_file, tmp_path / "twin.db")
    with opened(open_writer(f"sqlite:///{path}", Seconds(5))) as engine:
        fill(engine)
        yield engine


def statement(engine: Engine, month: int = NOVEMBER, now: Moment = LATER, **how: bool) -> Statement:
    url = engine.url.render_as_string(hide_password=False)
    with reading(url, TIMEOUT_S) as connection:
        tenant = tenant_accounts.find_tenant(connection, TENANT)
        return monthly_statement.statement(connection, tenant, month, now, **how)


def rendered(engine: Engine) -> tuple[bytes, bytes]:
    made = statement(engine)
    return render_csv(made).encode(), render_html(made).encode()


CSV = """\
tenant_id,month,line,time,model,requests,requests_not_charged,documents,documents_not_charged,tokens,amount_micro_dollars,reason,request_id
tn_1,2026-11,opening balance,2026-11-01 00:00:00 UTC,,,,,,,19999992,,
tn_1,2026-11,grant,2026-11-01 00:00:00 UTC,,,,,,,5000000,"invoice ""17"", <b>paid</b>",
tn_1,2026-11,correction,2026-11-30 23:59:59 UTC,,,,,,,-1000001,typed twice,
tn_1,2026-11,refund,2026-11-30 23:59:59 UTC,,,,,,,8,'=HYPERLINK(),rr_5
tn_1,2026-11,charges of a day,2026-11-01,Zeta,1,0,1000,0,65000,-8000,,
tn_1,2026-11,charges of a day,2026-11-01,a-b,1,0,3,0,200,-24,,
tn_1,2026-11,charges of a day,2026-11-01,alpha,1,0,10,0,600,-80,,
tn_1,2026-11,charges of a day,2026-11-15,a_b,3,1,60,50,3600,-3000000,,
tn_1,2026-11,charges of a day,2026-11-15,ä,1,0,5,0,300,-40,,
tn_1,2026-11,charges of a day,2026-11-20,alpha,1,1,0,0,0,0,,
tn_1,2026-11,closing balance,2026-12-01 00:00:00 UTC,,,,,,,20991855,,
"""


def test_a_statement_is_exact(month: Engine) -> None:
    assert render_csv(statement(month)) == CSV


def test_the_amounts_of_a_statement_add_up_to_its_last_line(month: Engine) -> None:
    *amounts, last = (
        int(row["amount_micro_dollars"])
        for row in csv.DictReader(io.StringIO(render_csv(statement(month))))
    )

    assert sum(amounts) == last


def test_the_closing_balance_is_the_opening_balance_of_the_next_month(month: Engine) -> None:
    now = at("2027-02-02")
    months = [
        statement(month, each, now) for each in (202608, 202609, 202610, 202611, 202612, 202701)
    ]

    assert months[0].opening == 0
    for one, following in pairwise(months):
        assert one.closing == following.opening
    with month.begin() as connection:
        assert months[-1].closing == tenant_accounts.find_tenant(connection, TENANT).available


def test_a_statement_has_the_same_bytes_after_a_roll_up_and_on_both_databases(
    month: Engine, twin: Engine
) -> None:
    first = rendered(month)

    assert rendered(month) == first
    assert rendered(twin) == first
    for now in ("2026-11-16", "2026-11-17", "2027-06-01"):
        with month.begin() as connection:
            step(connection, at(now), 1, 4)
        assert rendered(month) == first
    with month.begin() as connection:
        while step(connection, at("2027-06-01"), 1, 100):
            pass
        assert connection.execute(charges.select()).all() == []
        assert connection.execute(usage_days.select()).all() != []
    assert rendered(month) == first


def test_the_page_shows_the_month_and_cannot_be_tampered_with(month: Engine) -> None:
    page = render_html(statement(month))

    assert "Müller &amp; Söhne" in page
    assert "&lt;b&gt;paid&lt;/b&gt;" in page
    assert "<b>" not in page
    assert ">-$3.008144<" in page, "charges"
    assert ">$20.991855<" in page, "closing balance"
    assert ">-$1.000001<" in page, "the correction"
    assert "not complete" not in page
    for outside in ("http", "<script", "<link", "<img"):
        assert outside not in page


def test_an_incomplete_month_is_refused_or_marked(month: Engine) -> None:
    now = at("2026-11-15T08:00:30")
    with pytest.raises(
        AccountProblem, match="2026-11 is not complete until 2026-12-01 01:00:00 UTC"
    ):
        statement(month, now=now)
    with pytest.raises(AccountProblem, match="not complete until"):
        statement(month, now=at("2026-12-01T00:59:59"))

    made = statement(month, now=now, so_far=True)

    assert made.charged == 3_008_104
    assert "balance so far,2026-11-15 08:00:30 UTC" in render_csv(made)
    assert "not complete" in render_html(made)
    assert "until 2026-11-15 08:00:30 UTC" in render_html(made)
    assert "Closing balance" not in render_html(made)


def test_a_complete_month_is_never_marked_as_incomplete(month: Engine) -> None:
    assert statement(month, so_far=True) == statement(month)


def test_a_future_month_is_refused(month: Engine) -> None:
    with pytest.raises(AccountProblem, match="has not begun"):
        statement(month, now=at("2026-10-31T23:59:59"), so_far=True)


def test_a_month_without_any_row_has_a_statement(month: Engine) -> None:
    made = statement(month, 202608)

    assert (made.opening, made.closing, made.changes, made.usage) == (0, 0, (), ())
    assert render_html(made).count("<p>None.</p>") == 2


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "$0.000000"), (8, "$0.000008"), (-8, "-$0.000008"), (1_234_500_000, "$1,234.500000")],
)
def test_amounts_line_up(amount: int, text: str) -> None:
    assert monthly_statement.aligned(amount) == text
