"""The report on a canary counts requests and comparisons of its model and time."""

import pytest
from sqlalchemy import Engine

from serve_app.domain.canary import Comparison
from serve_app.domain.model import Caller
from serve_app.domain.units import Credits, ModelId, Moment, RequestId, Revision, Seconds, Tokens
from serve_app.ledger.db import comparisons
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.reports.canary_report import Agreement, Cost, Requests, canary_report
from serve_app.ports import Usage
from tests.support import postings
from tests.support.ledger import MODEL

SINCE = Moment(1_000_000)
LIVE, CANARY = Revision("live"), Revision("canary@v2")


def compare(engine: Engine, number: int, at: int = SINCE, **changes: object) -> None:
    """Store a comparison: overlap and tau are ``number`` hundredths, and times seconds."""
    values: dict[str, object] = {
        "request_id": RequestId(f"r{number}-{at}-{changes}"),
        "model": MODEL,
        "live": LIVE,
        "canary": CANARY,
        "compared_at": Moment(at),
        "documents": 11,
        "overlap_at_10": number / 100,
        "kendall_tau": number / 100,
        "live_run_s": Seconds(number),
        "canary_run_s": Seconds(2 * number),
        "live_tokens": Tokens(10),
        "canary_tokens": Tokens(20),
    }
    with engine.begin() as connection:
        comparisons.add(connection, Comparison(**(values | changes)))  # type: ignore[arg-type]  # see above


def request(
    engine: Engine, caller: Caller, revision: str, at: int = SINCE, *, charged: bool = True
) -> None:
    request_id = RequestId(f"{revision}-{at}-{charged}")
    moment = Moment(at)
    wanted = Reservation(
        request_id,
        caller.tenant,
        caller.key_id,
        MODEL,
        Credits(1),
        moment,
        moment,
        revision=Revision(revision),
    )
    usage = Usage(1, Tokens(30))
    with engine.begin() as connection:
        postings.reserve(connection, wanted)
    with engine.begin() as connection:
        if charged:
            postings.commit(connection, request_id, Credits(1), usage, moment)
        else:
            postings.void(connection, request_id, usage, moment)


def test_shadows_are_summed_for_each_pair_of_revisions(engine: Engine) -> None:
    for number in range(1, 101):
        compare(engine, number)
    compare(engine, 1, live="other", documents=1)
    compare(engine, 1, model=ModelId("another"))
    compare(engine, 1, at=SINCE - 1)

    with engine.begin() as connection:
        found = canary_report(connection, MODEL, SINCE)

    shadows, other = found.shadows
    assert (shadows.jobs, shadows.first_at, shadows.last_at) == (100, SINCE, SINCE)
    assert shadows.overlap_at_10 == shadows.kendall_tau
    assert shadows.overlap_at_10 is not None
    assert shadows.overlap_at_10.mean == pytest.approx(0.505)
    assert shadows.overlap_at_10.p10 == 0.1
    assert shadows.live == Cost(LIVE, 50, 99, 1_000)
    assert shadows.canary == Cost(CANARY, 100, 198, 2_000)
    assert other.live.revision == "other"
    assert (other.overlap_at_10, other.kendall_tau) == (None, None), "one document has no ranking"


def test_rankings_of_up_to_ten_documents_have_no_overlap_to_report(engine: Engine) -> None:
    compare(engine, 50, documents=10)

    with engine.begin() as connection:
        (found,) = canary_report(connection, MODEL, SINCE).shadows

    assert found.overlap_at_10 is None
    assert found.kendall_tau == Agreement(1, 0.5, 0.5)


def test_requests_and_errors_are_counted_by_revision(engine: Engine, acme: Caller) -> None:
    for at in (SINCE - 1, SINCE, SINCE + 1):
        request(engine, acme, LIVE, at)
    request(engine, acme, CANARY)
    request(engine, acme, CANARY, charged=False)
    request(engine, acme, "", charged=False)

    with engine.begin() as connection:
        found = canary_report(connection, MODEL, SINCE)

    assert found.requests == [
        Requests(Revision(""), 1, 1, 30),
        Requests(CANARY, 2, 1, 60),
        Requests(LIVE, 2, 0, 60),
    ]
