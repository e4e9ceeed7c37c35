"""The verifier finds every planted fault, and accepts only explanations that the run supports."""

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import text

from serve_app.domain.clock import SystemClock
from serve_app.domain.model import Caller
from serve_app.domain.units import (
    Credits,
    KeyId,
    ModelId,
    Moment,
    RequestId,
    Seconds,
    TenantId,
    Tokens,
)
from serve_app.ledger.db.engines import reading, transaction
from serve_app.ledger.db.schema import migrate
from serve_app.ledger.sql_ledger import SqlLedger
from serve_app.ports import Quote, Usage
from testkit.office import Office
from tests.chaos.faults import DECKS, POSTGRESQL, SQLITE, Happened, Kind, plan
from tests.chaos.traffic import GAVE_UP, HUNG_UP, NO_ANSWER, PRICE, Exchange, Said
from tests.chaos.verifier import (
    AFTER_COMMIT,
    AFTER_HANG_UP,
    REVERSAL_LOST,
    Books,
    Logged,
    Verdict,
    verify,
)

TIMEOUT_S = Seconds(5)
MODEL = ModelId("tiny")
MARGIN_S = Seconds(1)
NEVER = Moment(0)


@dataclass(frozen=True, slots=True)
class Story:
    """Two served requests and one that failed, on a real database."""

    database_url: str
    exchanges: Sequence[Exchange]

    def verdict(
        self,
        exchanges: Sequence[Exchange] | None = None,
        faults: Sequence[Happened] = (),
        log: Mapping[str, Logged] | None = None,
    ) -> Verdict:
        with reading(self.database_url, TIMEOUT_S) as connection:
            books = Books.read(connection)
        now = SystemClock().moment()
        return verify(exchanges or self.exchanges, faults, books, log or {}, now)

    def plant(self, statement: str, **values: object) -> None:
        with transaction(self.database_url, TIMEOUT_S) as connection:
            connection.execute(text(statement), values)


@pytest.fixture
def story(tmp_path: Path, template: Story) -> Story:
    """A copy of the database, for one test to modify."""
    original = template.database_url.removeprefix("sqlite:///")
    copy = shutil.copy(original, tmp_path / "rerank.db")
    return replace(template, database_url=f"sqlite:///{copy}")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Story:
    url = f"sqlite:///{tmp_path_factory.mktemp('ledger') / 'rerank.db'}"
    migrate(url)
    office = Office(url)
    tenant = office.tenant("acme", Credits(1_000))
    key = office.key(tenant)
    caller = Caller(TenantId(tenant), KeyId(key.key_id), frozenset({"rerank"}), None)
    ledger = SqlLedger(url, SystemClock(), MARGIN_S)
    ledger.start()

    async def served(number: int, documents: int) -> Exchange:
        request_id, sent_at = RequestId(f"r{number}"), SystemClock().moment()
        amount, tokens = Credits(documents * PRICE), 12 * documents + number
        await ledger.reserve(caller, Quote(request_id, MODEL, documents, amount, Seconds(8)))
        await ledger.commit(request_id, amount, Usage(documents, Tokens(tokens)))
        said = Said(request_id, documents, tokens, amount)
        return Exchange(
            f"c-{number}",
            key.key_id,
            documents,
            tokens,
            sent_at,
            SystemClock().moment(),
            "200",
            said,
        )

    async def failed(number: int) -> Exchange:
        request_id = RequestId(f"r{number}")
        await ledger.reserve(caller, Quote(request_id, MODEL, 1, Credits(PRICE), Seconds(8)))
        ledger.void(request_id, Usage(1, Tokens(12)))
        now = SystemClock().moment()
        return Exchange(f"c-{number}", key.key_id, 1, 12, now, now, "504 deadline_exceeded", None)

    async def scenario() -> list[Exchange]:
        return [await served(1, 3), await served(2, 5), await failed(3)]

    exchanges = asyncio.run(scenario())
    ledger.close()
    return Story(url, exchanges)


def test_a_correct_run_passes(story: Story) -> None:
    assert story.verdict() == Verdict()


def copy_of_a_charge(request_id: str, documents: str = "documents") -> str:
    """Return the statement that charges request r1 again as ``request_id``."""
    columns = "tenant_id, key_id, model, tokens, amount, charged_at"
    return (
        f"INSERT INTO charges (request_id, documents, {columns}) "  # noqa: S608 - no input
        f"SELECT '{request_id}', {documents}, {columns} FROM charges WHERE request_id = 'r1'"
    )


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("DELETE FROM charges WHERE request_id = 'r1'", "there is no charge r1"),
        (copy_of_a_charge("r1-again"), "is charged twice"),
        (copy_of_a_charge("r4", documents="77"), "matches no request"),
        ("UPDATE charges SET tokens = tokens + 1 WHERE request_id = 'r2'", "the charge is"),
        ("UPDATE charges SET documents = documents - 1 WHERE request_id = 'r2'", "the charge is"),
        ("UPDATE charges SET amount = amount + 1 WHERE request_id = 'r2'", "the charge is"),
        ("UPDATE charges SET request_id = 'r4' WHERE request_id = 'r2'", "there is no charge r2"),
        (
            "UPDATE reservations SET state = 'pending', expires_at = 1 WHERE id = 'r3'",
            "pending past its expiry",
        ),
        (
            "UPDATE reservations SET state = 'expired', settled_at = expires_at - 1 "
            "WHERE id = 'r3'",
            "expired too early",
        ),
        ("UPDATE reservations SET state = 'committed' WHERE id = 'r3'", "without a charge"),
        ("UPDATE reservations SET state = 'voided' WHERE id = 'r2'", "no committed reservation"),
        ("UPDATE reservations SET tokens = 1 WHERE id = 'r2'", "does not match its charge"),
        ("UPDATE tenants SET available = available - 1", "do not balance"),
        ("UPDATE grants SET amount = amount + 1", "do not balance"),
        ("UPDATE api_keys SET revoked_at = created_at - 10000", "revoked"),
        ("UPDATE api_keys SET documents_per_minute_max = 8", "of 8"),
    ],
)
def test_a_planted_fault_is_detected(story: Story, statement: str, finding: str) -> None:
    story.plant(statement)

    assert any(finding in violation for violation in story.verdict().violations)


@pytest.mark.parametrize(
    ("said", "finding"),
    [
        (Said("r2", 3, 37, 21), "given to another request"),
        (Said("r1", 3, 38, 21), "the answer said (3, 38, 21)"),
        (Said("r1", 4, 37, 21), "the answer said (4, 37, 21)"),
        (Said("r1", 3, 37, 22), "the answer said (3, 37, 22)"),
    ],
)
def test_a_wrong_response_is_detected(story: Story, said: Said, finding: str) -> None:
    first, *others = story.exchanges
    exchanges = [replace(first, said=said), *others]

    assert any(finding in violation for violation in story.verdict(exchanges).violations)


@pytest.mark.parametrize("outcome", ["500 internal", "500 engine_failure"])
def test_an_internal_error_is_detected(story: Story, outcome: str) -> None:
    *others, last = story.exchanges

    verdict = story.verdict([*others, replace(last, outcome=outcome)])

    assert verdict.violations == [f"c-3: {outcome}"]


def happened(kind: Kind, began_at: int, ended_at: int) -> Happened:
    return Happened(kind, Moment(began_at), Moment(ended_at), 1)


# Times of faults for a request that was sent at 0, charged at 40, and ended for its client at 100.
GATEWAY = happened(Kind.GATEWAY, 50, 60)
GATEWAY_BEFORE = happened(Kind.GATEWAY, -300, -290)
GATEWAY_LATER = happened(Kind.GATEWAY, 5_000, 5_010)
GATEWAY_MUCH_LATER = happened(Kind.GATEWAY, 50_000, 50_010)
SCORER = happened(Kind.SCORER, 50, 60)
DATABASE = happened(Kind.DATABASE, 30, 4_000)
CUT_BEFORE = happened(Kind.CUT_COMMIT, -60, -50)

SERVED, SERVED_NOBODY = Logged(200, charged=True), Logged(499, charged=True)
GONE, TOO_LATE = Logged(499, charged=False), Logged(504, charged=False)
FAILED = Logged(503, charged=False)
UNAVAILABLE = "503 ledger_unavailable"


@pytest.mark.parametrize(
    ("outcome", "logged", "faults", "explanation"),
    [
        ("504 deadline_exceeded", TOO_LATE, [GATEWAY, DATABASE], None),
        ("504 deadline_exceeded", None, [GATEWAY], None),
        (NO_ANSWER, None, [GATEWAY], AFTER_COMMIT),
        ("500 gateway_lost", None, [GATEWAY], AFTER_COMMIT),
        (NO_ANSWER, SERVED, [GATEWAY], AFTER_COMMIT),
        (NO_ANSWER, SERVED, [], None),
        (NO_ANSWER, None, [SCORER, DATABASE], None),
        (NO_ANSWER, None, [GATEWAY_BEFORE], None),
        (NO_ANSWER, None, [GATEWAY_MUCH_LATER], None),
        (HUNG_UP, SERVED, [], AFTER_HANG_UP),
        (HUNG_UP, SERVED_NOBODY, [], AFTER_HANG_UP),
        (GAVE_UP, SERVED, [], AFTER_HANG_UP),
        (HUNG_UP, GONE, [GATEWAY, DATABASE], None),
        (HUNG_UP, None, [], None),
        (HUNG_UP, None, [GATEWAY], AFTER_COMMIT),
        (UNAVAILABLE, FAILED, [DATABASE, GATEWAY_LATER], REVERSAL_LOST),
        (UNAVAILABLE, FAILED, [DATABASE], None),
        (UNAVAILABLE, FAILED, [GATEWAY_LATER], None),
        (UNAVAILABLE, FAILED, [DATABASE, GATEWAY_MUCH_LATER], None),
        (UNAVAILABLE, FAILED, [CUT_BEFORE, GATEWAY_LATER], None),
    ],
)
def test_a_charge_without_a_200_needs_a_matching_fault(
    story: Story,
    outcome: str,
    logged: Logged | None,
    faults: list[Happened],
    explanation: str | None,
) -> None:
    zero = SystemClock().moment()
    story.plant("UPDATE charges SET charged_at = :at WHERE request_id = 'r1'", at=zero + 40)
    first, *others = story.exchanges
    lost = replace(first, outcome=outcome, said=None, sent_at=zero, ended_at=Moment(zero + 100))
    shifted = [
        replace(each, began_at=Moment(zero + each.began_at), ended_at=Moment(zero + each.ended_at))
        for each in faults
    ]
    log = {} if logged is None else {lost.name: logged}

    verdict = story.verdict([lost, *others], shifted, log)

    if explanation is None:
        assert ["got no 200" in violation for violation in verdict.violations] == [True]
    else:
        assert verdict.violations == []
        assert verdict.charged_without_200 == {explanation: 1}


@pytest.mark.parametrize("database", [SQLITE, POSTGRESQL])
def test_a_seed_gives_the_same_plan_with_every_kind_of_fault(database: str) -> None:
    length = len(DECKS[database])
    first, again, other = (
        [planned for planned, _ in zip(plan(database, seed), range(length), strict=False)]
        for seed in (1, 1, 2)
    )

    assert first == again != other
    assert {planned.kind for planned in first} == set(DECKS[database])
