"""Deliver events from the outbox to an HTTP sink as batches of CloudEvents, on a separate thread.

    outbox ── oldest first ──> POST ─┬─ 2xx ─────────────> deleted from the outbox
                                     ├─ 400, 413, 422 ───> each sent alone; failures set aside
                                     └─ anything else ───> retried, after growing pauses

An event leaves the outbox only after the sink has accepted it, and may be sent twice. Sinks detect
repetitions by their ``source`` and ``id``.

Format: CloudEvents 1.0, JSON batch; OpenMeter, POST /api/v1/events.
"""

import json
import logging
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx

from serve_app.domain.clock import Clock
from serve_app.domain.errors import LedgerUnavailable
from serve_app.domain.formats import write_moment
from serve_app.domain.units import Instant, Seconds
from serve_app.ledger.events.outbox import Event
from serve_app.ledger.events.queue import EventQueue
from serve_app.telemetry.logs import failure_fields, get_logger
from serve_app.telemetry.metrics import EVENT_AGE_SECONDS, Metrics

logger = get_logger(__name__)

SOURCE = "rerank-serve"
"""The same for every gateway."""

CONTENT_TYPE = "application/cloudevents-batch+json"
BATCH_EVENTS_MAX = 200
CALL_TIMEOUT_S = Seconds(5.0)
"""For each step of a call: connecting, sending, waiting for more bytes of the answer."""

ANSWER_BYTES_MAX = 65_536
POLL_S = Seconds(1.0)

WAIT_S_MIN, WAIT_S_MAX = Seconds(1.0), Seconds(60.0)
ASIDE_S_MIN, ASIDE_S_MAX = Seconds(30.0), Seconds(900.0)
ASIDE_EVENTS_MAX = 1_000

REFUSED = frozenset({400, 413, 422})
"""Statuses that concern the events and not the sink, the token or the address."""


class SinkRefused(Exception):
    """The sink rejects these events."""


class SinkFailed(Exception):
    """The sink is unreachable or accepts no events now."""


@dataclass(frozen=True, slots=True)
class Aside:
    """An event of a rejected batch, to be sent alone."""

    refusals: int
    """Number of rejections of this event alone."""

    retry_at: Instant


def wait_s(attempts: int, least_s: Seconds, most_s: Seconds, chance: float) -> Seconds:
    """Return the pause after ``attempts`` failures in a row, which doubles up to a limit.

    ``chance``, from 0 to 1, shortens it by up to half, so that gateways do not retry in step.
    """
    doublings = min(attempts - 1, 16)  # Bounds the number if a sink is away for a week.
    return Seconds(min(most_s, least_s * 2**doublings) * (1 - chance / 2))


def cloud_events(events: Sequence[Event]) -> list[dict[str, object]]:
    return [
        {
            "specversion": "1.0",
            "id": event.id,
            "source": SOURCE,
            "type": event.type,
            "subject": event.tenant,
            "time": write_moment(event.at),
            "datacontenttype": "application/json",
            "data": event.data,
        }
        for event in events
    ]


class HttpSink:
    """An address that accepts events. Calls block."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"content-type": CONTENT_TYPE}
        if token:
            headers["authorization"] = f"Bearer {token}"
        self._client = httpx.Client(headers=headers, timeout=CALL_TIMEOUT_S)
        self._url = url

    def close(self) -> None:
        self._client.close()

    def send(self, events: Sequence[Event]) -> None:
        """Return once the sink has accepted all events. Raises: SinkRefused, SinkFailed."""
        content = json.dumps(cloud_events(events), separators=(",", ":"))
        try:
            with self._client.stream("POST", self._url, content=content) as response:
                status = response.status_code
                _skip(response)
        except httpx.HTTPError as error:
            raise SinkFailed(f"{type(error).__name__}: {error}") from error
        if status in REFUSED:
            raise SinkRefused(f"status {status}")
        if not 200 <= status < 300:
            raise SinkFailed(f"status {status}")


class Delivery:
    """The thread between the outbox and the sink.

    It holds at most one batch, and the ids of `ASIDE_EVENTS_MAX` events and one batch set aside.
    """

    def __init__(self, queue: EventQueue, sink: HttpSink, metrics: Metrics, clock: Clock) -> None:
        """The thread closes ``queue`` and ``sink`` when it ends."""
        self._queue = queue
        self._sink = sink
        self._metrics = metrics
        self._clock = clock
        self._aside: dict[str, Aside] = {}
        self._failures = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="event-delivery", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End after the current call. Waits no longer than a regular call may take."""
        self._stopping.set()
        self._thread.join(3 * CALL_TIMEOUT_S)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._stopping.wait(self._step())
        self._sink.close()
        self._queue.close()

    def _step(self) -> Seconds:
        try:
            sent = self._send_some()
        except Exception as error:  # noqa: BLE001 - the outermost handler of this thread
            self._failures += 1
            pause_s = wait_s(self._failures, WAIT_S_MIN, WAIT_S_MAX, _chance())
            expected = isinstance(error, SinkFailed | LedgerUnavailable)
            fields = {"reason": str(error)} if expected else failure_fields(error)
            level = logging.WARNING if expected else logging.ERROR
            logger.log(level, "event_sink_failed", extra=fields | {"pause_s": round(pause_s, 3)})
            return pause_s
        self._failures = 0
        return Seconds(0.0) if sent else POLL_S

    def _send_some(self) -> bool:
        """Return whether there may be more events. Raises: SinkFailed, LedgerUnavailable."""
        oldest_at = self._queue.oldest_at()
        age_ms = 0 if oldest_at is None else self._clock.moment() - oldest_at
        self._metrics.record(EVENT_AGE_SECONDS, max(0, age_ms) / 1_000)
        if oldest_at is None:
            self._aside.clear()
            return False
        with self._queue.turn() as ours:
            events = self._next() if ours else []
            if events:
                self._send(events)
        return bool(events)

    def _next(self) -> list[Event]:
        """Return one event that was set aside, or others."""
        now = self._clock.instant()
        held = [key for key, aside in self._aside.items() if aside.retry_at > now]
        events = self._queue.waiting(BATCH_EVENTS_MAX, without=held)
        if len(events) < BATCH_EVENTS_MAX:
            # All queued events are known: others were withdrawn, or sent by another gateway.
            there = {event.id for event in events}.union(held)
            self._aside = {key: aside for key, aside in self._aside.items() if key in there}
        alone = [event for event in events if event.id in self._aside]
        if alone:
            return alone[:1]
        return events if len(self._aside) < ASIDE_EVENTS_MAX else []

    def _send(self, events: Sequence[Event]) -> None:
        try:
            self._sink.send(events)
        except SinkRefused as refusal:
            self._set_aside(events, str(refusal))
        else:
            ids = [event.id for event in events]
            self._queue.confirm(ids)
            for key in ids:
                self._aside.pop(key, None)

    def _set_aside(self, events: Sequence[Event], reason: str) -> None:
        now = self._clock.instant()
        if len(events) > 1:
            logger.warning("event_batch_refused", extra={"reason": reason, "events": len(events)})
            self._aside |= {event.id: Aside(0, now) for event in events}
            return
        (event,) = events
        known = self._aside.get(event.id)
        refusals = 1 if known is None else known.refusals + 1
        pause_s = wait_s(refusals, ASIDE_S_MIN, ASIDE_S_MAX, _chance())
        self._aside[event.id] = Aside(refusals, Instant(now + pause_s))
        fields = {"event": event.id, "type": event.type, "refusals": refusals}
        logger.error("event_refused", extra=fields | {"reason": reason, "retry_s": round(pause_s)})


def _skip(response: httpx.Response) -> None:
    """Read the answer, up to a limit of size and time, so that the connection can be reused."""
    size, end = 0, time.monotonic() + CALL_TIMEOUT_S
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > ANSWER_BYTES_MAX or time.monotonic() > end:
            return


def _chance() -> float:
    return random.random()  # noqa: S311 - not a secret
