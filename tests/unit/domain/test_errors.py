"""All errors can cross a Ray handle, and their messages reveal nothing internal."""

import inspect
import json
import pickle

import pytest

from serve_app.domain import errors
from serve_app.domain.model import RateLimitState
from serve_app.domain.units import Credits, Seconds
from serve_app.http.problems import PROBLEMS, problem

SAMPLES = [
    errors.InvalidRequest("top_n", "must be at least 1"),
    errors.CompressedBody("content-encoding", "is not supported"),
    errors.Unauthenticated("was revoked"),
    errors.OutOfCredit(Credits(50), Credits(49)),
    errors.SpendCapReached("key", Credits(50)),
    errors.RateLimited("tenant", "requests", 3, (RateLimitState("requests", 5, 0, Seconds(3)),)),
    errors.Forbidden("the model 'big'"),
    errors.NotFound("model 'big'", "model"),
    errors.Conflict("a tenant named 'acme' already exists"),
    errors.IdempotencyKeyReused("this key was used for another request"),
    errors.IdempotencyKeyInUse(3),
    errors.MethodNotAllowed("PUT", "POST"),
    errors.TooLarge("documents", 1_000, "documents"),
    errors.BodyTimeout(10.0),
    errors.Overloaded(7),
    errors.ConcurrencyLimited("key", 512),
    errors.TooManyRefusals(200, 3),
    errors.ClientGone(),
    errors.EngineFailure("CUDA out of memory on 10.0.0.7"),
    errors.ReservationClosed("expired"),
    errors.LedgerUnavailable("connect to 10.0.0.7 refused"),
    errors.NoReplica("10.0.0.7 died"),
    errors.ReplicaLost("10.0.0.7 died"),
    errors.DeadlineExceeded(2.5),
]

each_error = pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)


def test_the_samples_cover_every_error() -> None:
    deliberate = {
        member
        for _, member in inspect.getmembers(errors, inspect.isclass)
        if issubclass(member, errors.RerankError) and member is not errors.RerankError
    }

    assert {type(sample) for sample in SAMPLES} == deliberate


def test_every_error_has_a_row_in_the_table_of_statuses() -> None:
    inherited = {errors.ReplicaLost}

    assert {type(sample) for sample in SAMPLES} - inherited == set(PROBLEMS)


@each_error
def test_an_error_survives_pickling(error: errors.RerankError) -> None:
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert copy.public_message == error.public_message
    assert (copy.code, copy.where) == (error.code, error.where)


@each_error
def test_the_client_never_sees_the_remote_traceback(error: errors.RerankError) -> None:
    """Ray re-raises our error as a subclass whose ``str`` is the traceback of the replica."""

    class AsRayRaisesIt(type(error)):  # type: ignore[misc]  # a base known at run time
        def __str__(self) -> str:
            return "ray::Scorer (pid=7, ip=10.0.0.7) File /srv/engine.py"

    here = problem(error, "rr_1")
    remote = problem(AsRayRaisesIt(*error.args), "rr_1")

    assert (remote.status_code, remote.body) == (here.status_code, here.body)
    assert b"10.0.0.7" not in remote.body


@each_error
def test_every_message_says_what_was_charged(error: errors.RerankError) -> None:
    assert error.public_message.endswith(errors.NOTHING_CHARGED)


@pytest.mark.parametrize(
    ("wait_s", "shown"), [(0, "1"), (0.2, "1"), (59.5, "60"), (61, "60"), (3_600, "60")]
)
def test_retry_after_is_from_one_second_to_a_minute(wait_s: float, shown: str) -> None:
    for error in (errors.RateLimited("key", "requests", wait_s, ()), errors.Overloaded(wait_s)):
        assert problem(error, "rr_1").headers["retry-after"] == shown
        assert f"Retry in {shown} s." in error.public_message


@each_error
def test_the_body_has_the_same_message_for_every_client_library(error: errors.RerankError) -> None:
    body = json.loads(bytes(problem(error, "rr_1").body))

    assert body == {
        "error": {
            "message": error.public_message,
            "type": body["error"]["type"],
            "param": error.where,
            "code": error.code,
        },
        "message": error.public_message,
        "detail": error.public_message,
        "id": "rr_1",
    }
