"""Work for as long as somebody waits for it.

Under Ray Serve a hang-up cancels the request's task from outside; under a plain ASGI server it is
only a message that somebody must read. Both end here as a cancellation of the work.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from serve_app.domain.errors import ClientGone, EngineFailure

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``, cancelling it when the client hangs up or when we are cancelled ourselves.

    Returns only after the work has ended, so everything it held is given back. Work that ended
    well all the same (its charge was already being written) returns its result.

    Args:
        receive: The request's ASGI channel, its body read to the end.
        work: Started here.

    Raises: ClientGone, and whatever ``work`` raises.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_hung_up(receive))
    gone = False
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        gone = not task.done()
    finally:
        task.cancel()
        watcher.cancel()
        # A channel that broke is a hang-up too; `return_exceptions` keeps it quiet.
        await asyncio.gather(task, watcher, return_exceptions=True)
    if task.cancelled():
        raise ClientGone if gone else EngineFailure("the work was cancelled from within")
    return task.result()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
