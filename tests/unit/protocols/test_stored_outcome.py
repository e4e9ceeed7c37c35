"""Outcomes survive their storage, also that of an earlier version."""

import math
import zlib
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from serve_app.domain.job import Idempotency
from serve_app.domain.model import Outcome, RankedDocument, RateLimitState
from serve_app.domain.units import Credits, ModelId, Moment, RequestId, Seconds, Tokens
from serve_app.protocols.stored_outcome import replayed, to_store
from testkit.log_leaks import DOCUMENT_MARKER, QUERY_MARKER
from tests.support.fakes import a_job, an_outcome

JOB = replace(a_job(), idempotency=Idempotency(b"key", b"request"))
LIMITS = (RateLimitState("requests", 5, 4, Seconds(9)),)

finite = st.floats(allow_nan=False, allow_infinity=False)
spans = st.none() | st.tuples(st.integers(0), st.integers(0))
outcomes = st.builds(
    Outcome,
    request_id=st.just(RequestId("rr_1")),
    model=st.text().map(ModelId),
    results=st.lists(st.builds(RankedDocument, st.integers(0), finite, st.booleans(), spans)).map(
        tuple
    ),
    documents=st.integers(0),
    tokens=st.integers(0).map(Tokens),
    charge=st.integers(0).map(Credits),
    queue_wait_s=finite.map(Seconds),
    run_s=finite.map(Seconds),
)


def stored(outcome: Outcome) -> bytes:
    kept = to_store(JOB, outcome)
    assert kept is not None
    assert kept.idempotency == JOB.idempotency
    return kept.outcome


@given(outcomes)
def test_an_outcome_is_stored_without_loss(outcome: Outcome) -> None:
    assert replayed(stored(outcome), LIMITS) == replace(outcome, rate_limits=LIMITS, replayed=True)


def test_every_logit_keeps_its_bits() -> None:
    logits = [0.1 + 0.2, -0.0, 5e-324, math.nextafter(1, 2), 1e308]

    again = replayed(stored(an_outcome(logits)), ()).results

    assert {each.index: each.logit.hex() for each in again} == {
        index: logit.hex() for index, logit in enumerate(logits)
    }


def test_nothing_is_stored_for_a_request_without_a_key() -> None:
    assert to_store(a_job(), an_outcome([1.0])) is None


def test_no_text_and_no_rate_limit_is_stored() -> None:
    job = replace(JOB, pairs=a_job(query=QUERY_MARKER, documents=(DOCUMENT_MARKER,)).pairs)
    kept = to_store(job, replace(an_outcome([1.0]), rate_limits=LIMITS))

    assert kept is not None
    text = zlib.decompress(kept.outcome).decode()
    assert QUERY_MARKER not in text
    assert DOCUMENT_MARKER not in text
    assert "limit" not in text


def test_the_first_form_can_be_read() -> None:
    """Outcomes are a day old at most, but a newer version reads those of an older one."""
    first_form = (
        b'{"request_id":"rr_1","created_at":1764374400500,"model":"m","results":[{"index":1,"logit":2.5,"truncated":true}],'
        b'"documents":3,"tokens":41,"charge":24,"queue_wait_s":0.5,"run_s":0.25}'
    )

    outcome = replayed(zlib.compress(first_form), ())

    assert outcome == Outcome(
        request_id=RequestId("rr_1"),
        created_at=Moment(1_764_374_400_500),
        model=ModelId("m"),
        results=(RankedDocument(1, 2.5, truncated=True),),
        documents=3,
        tokens=Tokens(41),
        charge=Credits(24),
        queue_wait_s=Seconds(0.5),
        run_s=Seconds(0.25),
        replayed=True,
    )


def test_fields_of_a_newer_version_are_ignored() -> None:
    """While gateways of two versions run, each reads the outcomes of the other."""
    json = zlib.decompress(stored(an_outcome([1.0]))).replace(b"{", b'{"newer":[1,2],')

    assert replayed(zlib.compress(json), ()).results == an_outcome([1.0]).results
