"""A disconnect of the client cancels the work, which is then not charged."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from starlette.types import Message

from serve_app.domain.errors import ClientGone, EngineFailure
from serve_app.domain.units import Credits, RequestId
from serve_app.http.rerank.disconnect import while_connected
from serve_app.ports import StoredOutcome, Usage
from tests.support.app import FakeApp
from tests.support.asgi import Exchange
from tests.support.fakes import HangingJobScorer

BODY = b'{"query": "blue", "documents": ["sky", "grass"]}'


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


async def gone() -> Message:
    return {"type": "http.disconnect"}


async def broken() -> Message:
    raise ConnectionError("the proxy died")


async def forever() -> str:
    await asyncio.Event().wait()
    return "unreachable"


def disconnect_while_scoring(leave: Callable[[Exchange, asyncio.Task[None]], None]) -> FakeApp:
    """Run a request; call ``leave`` once scoring has begun. Cancellation is passed on."""

    async def scene() -> FakeApp:
        scorer = HangingJobScorer()
        app = FakeApp(scorer=scorer)
        exchange = Exchange([BODY])
        task = asyncio.create_task(exchange.run(app.asgi))
        await scorer.entered.wait()
        assert app.ledger.pending == {"rr_1": 16}

        leave(exchange, task)
        await asyncio.gather(task, return_exceptions=True)

        app.close()
        return app

    return asyncio.run(scene())


@pytest.mark.parametrize(
    "leave",
    [
        pytest.param(lambda exchange, _: exchange.disconnect(), id="as a message"),
        pytest.param(lambda _, task: task.cancel(), id="as a cancellation, under Ray Serve"),
    ],
)
def test_a_disconnect_voids_the_reservation_and_is_logged(
    leave: Callable[[Exchange, asyncio.Task[None]], None],
) -> None:
    app = disconnect_while_scoring(leave)

    assert app.ledger.log == ["reserve", "void 2"]
    assert (app.ledger.available, app.ledger.charged) == (1_000_000, {})
    assert app.gate.amount == 0
    assert app.codes() == ["client_gone"]
    (line,) = app.lines
    assert (line["status"], line["code"], line["tenant"]) == (499, "client_gone", "acme")


def test_a_cancellation_is_passed_on() -> None:
    async def scene() -> bool:
        scorer = HangingJobScorer()
        app = FakeApp(scorer=scorer)
        task = asyncio.create_task(Exchange([BODY]).run(app.asgi))
        await scorer.entered.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        app.close()
        return task.cancelled()

    assert asyncio.run(scene())


def test_a_charge_written_despite_a_disconnect_is_logged() -> None:
    async def scene() -> FakeApp:
        app = FakeApp()
        committing = asyncio.Event()
        commit = app.ledger.commit

        async def past_the_point_of_no_return(
            request_id: RequestId,
            amount: Credits,
            usage: Usage,
            stored: StoredOutcome | None = None,
        ) -> None:
            committing.set()
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await commit(request_id, amount, usage, stored)

        app.ledger.commit = past_the_point_of_no_return  # type: ignore[method-assign]  # replaces a fake's method
        task = asyncio.create_task(Exchange([BODY]).run(app.asgi))
        await committing.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        app.close()
        return app

    app = asyncio.run(scene())

    (line,) = app.lines
    assert (line["code"], line["charge_micro_dollars"]) == ("client_gone", 16)
    assert app.total("rerank_credits") == 16


@pytest.mark.parametrize("receive", [gone, broken])
def test_work_is_cancelled_when_the_client_disconnects(
    receive: Callable[[], Awaitable[Message]],
) -> None:
    with pytest.raises(ClientGone):
        asyncio.run(while_connected(receive, forever()))


def test_finished_work_is_returned() -> None:
    async def work() -> str:
        return "done"

    assert asyncio.run(while_connected(never, work())) == "done"


def test_an_error_of_the_work_is_raised_unchanged() -> None:
    async def work() -> None:
        raise EngineFailure("broken")

    with pytest.raises(EngineFailure, match="broken"):
        asyncio.run(while_connected(never, work()))


def test_a_charged_request_completes_despite_a_disconnect() -> None:
    async def charging() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "charged"
        return "unreachable"

    async def leaves_later() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.disconnect"}

    assert asyncio.run(while_connected(leaves_later, charging())) == "charged"


def test_work_cancelled_from_within_is_an_engine_failure() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(EngineFailure):
        asyncio.run(while_connected(never, work()))
