"""Cancel the work of a request when its client disconnects.

Under Ray Serve, a disconnect cancels the task. Under a plain ASGI server, it is only a message.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

from serve_app.domain.errors import ClientGone, EngineFailure

T = TypeVar("T")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run ``work``, and cancel it when the client disconnects or this call is cancelled.

    Returns only after the work has ended, with its result if its charge was already being written.
    The body must have been read from ``receive``.

    Raises: ClientGone, and any exception of ``work``.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    gone = False
    try:
        await asyncio.wait({task, watcher}, return_when=asyncio.FIRST_COMPLETED)
        gone = not task.done()
    finally:
        task.cancel()
        watcher.cancel()
        # A broken channel counts as a disconnect, too.
        await asyncio.gather(task, watcher, return_exceptions=True)
    if task.cancelled():
        raise ClientGone if gone else EngineFailure("the work was cancelled from within")
    return task.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
