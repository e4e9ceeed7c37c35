"""Comparison of the gateways' logs with the ledger's charges of one day.

Charge rows and log lines are compared in both directions, daily sums with the log lines that have
no charge row. A request in progress at midnight can be part of either day's sum.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Row, select

from serve_app.domain.units import KeyId, ModelId, Moment, RequestId
from serve_app.ledger.db.tables import charges, usage_days
from serve_app.ledger.money.calendar import MILLISECONDS_PER_DAY
from serve_app.ledger.reports.reconcile import Findings
from serve_app.telemetry.logs import REQUEST

OK, CLIENT_GONE = 200, 499
LINES_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class LogLine:
    """One request in a gateway's log."""

    request_id: RequestId
    status: int
    begun_at: Moment
    ended_at: Moment
    key_id: KeyId | None
    model: ModelId | None
    documents: int | None
    tokens: int | None
    amount: int | None

    repeats: RequestId | None = None
    """The charged request whose answer was sent again."""


def parse_line(line: str) -> LogLine | None:
    """Return ``None`` if the line does not describe a request.

    Raises: ValueError if it is broken, for example the last line of a killed process.
    """
    if f'"{REQUEST}"' not in line:
        return None
    try:
        fields = json.loads(line)
        if fields.get("event") != REQUEST:
            return None
        ended_at = int(fields["timestamp_ns"]) // 1_000_000
        return LogLine(
            request_id=RequestId(fields["id"]),
            status=int(fields["status"]),
            begun_at=Moment(ended_at - round(float(fields["duration_s"]) * 1_000)),
            ended_at=Moment(ended_at),
            key_id=fields.get("key_id"),
            model=fields.get("model"),
            documents=fields.get("documents"),
            tokens=fields.get("tokens"),
            amount=fields.get("charge_micro_dollars"),
            repeats=fields.get("repeats"),
        )
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"broken log line of a request: {error}") from error


def check_logs(connection: Connection, day: Moment, lines: Iterable[LogLine]) -> Findings:
    """``day`` is the first moment of the day. ``lines`` can be of any days, in any order.

    The ids of the day's lines are held in memory.
    """
    check = _LogCheck(connection, day)
    remaining = iter(lines)
    while some := list(islice(remaining, LINES_AT_ONCE)):
        check.compare(some)
    check.conclude()
    return check.findings


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    documents: int = 0
    tokens: int = 0
    amount: int = 0

    def add(self, line: LogLine) -> None:
        self.requests += 1
        self.documents += line.documents or 0
        self.tokens += line.tokens or 0
        self.amount += line.amount or 0


_Group = tuple[KeyId | None, ModelId | None]


class _LogCheck:
    def __init__(self, connection: Connection, day: Moment) -> None:
        self.findings = Findings({"lines of the day": 0, "answered 200": 0})
        self._connection = connection
        self._since, self._until = day, Moment(day + MILLISECONDS_PER_DAY)
        self._is_summed = self._has_sums(day)
        self._is_summed_before = self._has_sums(Moment(day - MILLISECONDS_PER_DAY))
        self._seen: set[RequestId] = set()
        self._seen_in_repeats: set[RequestId] = set()
        # Sums of lines without a charge row, certainly or possibly of this day.
        self._least: dict[_Group, _Sum] = {}
        self._most: dict[_Group, _Sum] = {}

    def compare(self, lines: Sequence[LogLine]) -> None:
        # A repeat shows that the first request was answered, even if that request's line is missing
        # because its gateway was killed.
        self._seen_in_repeats.update(each.repeats for each in lines if each.repeats)
        lines = [each for each in lines if not each.repeats]
        wanted = select(charges).where(
            charges.c.request_id.in_([each.request_id for each in lines])
        )
        found = {row.request_id: row for row in self._connection.execute(wanted)}
        for line in lines:
            charge = found.get(line.request_id)
            if charge is None:
                ours = line.begun_at < self._until and line.ended_at >= self._since
            else:
                ours = self._since <= charge.charged_at < self._until
            if ours:
                self._compare_one(line, charge)

    def conclude(self) -> None:
        """Call this after all lines."""
        query = select(charges.c.request_id, charges.c.amount).where(
            charges.c.charged_at >= self._since, charges.c.charged_at < self._until
        )
        seen = self._seen | self._seen_in_repeats
        for row in self._connection.execute(query.order_by(charges.c.charged_at)):
            if row.request_id not in seen:
                self._differ(row.request_id, f"charged {row.amount}, but not in the logs")
        if self._is_summed:
            self._compare_sums()

    def _compare_one(self, line: LogLine, charge: Row[Any] | None) -> None:
        self.findings.count("lines of the day")
        if line.request_id in self._seen:
            self._differ(line.request_id, "logged twice")
            return
        self._seen.add(line.request_id)
        if line.status == OK:
            self.findings.count("answered 200")
        elif line.amount is not None and line.status == CLIENT_GONE:
            self.findings.count("charged, but the client disconnected")
        elif line.amount is not None:
            self._differ(line.request_id, f"charged {line.amount}, but answered {line.status}")
        if charge is not None:
            self._compare_charge(line, charge)
        elif line.status == OK or line.amount is not None:
            self._without_charge(line)

    def _compare_charge(self, line: LogLine, charge: Row[Any]) -> None:
        self.findings.count("compared with their charges")
        pairs = (
            ("key", line.key_id, charge.key_id),
            ("model", line.model, charge.model),
            ("documents", line.documents, charge.documents),
            ("tokens", line.tokens, charge.tokens),
            ("charge in micro-dollars", line.amount, charge.amount),
        )
        for what, logged, kept in pairs:
            if logged != kept:
                text = f"answered {line.status}, {what} {logged} in the log, {kept} in the ledger"
                self._differ(line.request_id, text)

    def _without_charge(self, line: LogLine) -> None:
        began_before = line.begun_at < self._since
        if self._is_summed:
            group = (line.key_id, line.model)
            self._most.setdefault(group, _Sum()).add(line)
            if not began_before and line.ended_at < self._until:
                self._least.setdefault(group, _Sum()).add(line)
            self.findings.count("compared with the day's sums")
        elif line.ended_at < self._until and not (began_before and self._is_summed_before):
            self._differ(
                line.request_id,
                f"answered {line.status}, charge {line.amount} in the log, none in the ledger",
            )

    def _compare_sums(self) -> None:
        sums = self._sums()
        for group in sorted({*sums, *self._most}, key=str):
            kept, free = sums.get(group, (_Sum(), 0))
            problems = []
            for what in _Sum.__slots__:
                value, low, high = (
                    getattr(each, what)
                    for each in (
                        kept,
                        self._least.get(group, _Sum()),
                        self._most.get(group, _Sum()),
                    )
                )
                # Token sums include tokens of uncharged requests, which the logs do not record.
                if not (low <= value and (value <= high or (what == "tokens" and free))):
                    logged = f"{low}" if low == high else f"{low} to {high}"
                    problems.append(f"{what} {logged} in the logs, {value} in the day's sum")
            if problems:
                self.findings.differences.append(
                    f"key {group[0]}, model {group[1]}: {'; '.join(problems)}"
                )

    def _sums(self) -> dict[_Group, tuple[_Sum, int]]:
        """Return the charged part of the day's sums and the number of uncharged requests."""
        rows = self._connection.execute(select(usage_days).where(usage_days.c.day == self._since))
        return {
            (row.key_id, row.model): (
                _Sum(
                    row.requests - row.requests_not_charged,
                    row.documents - row.documents_not_charged,
                    row.tokens,
                    row.charged,
                ),
                row.requests_not_charged,
            )
            for row in rows
        }

    def _has_sums(self, day: Moment) -> bool:
        query = select(usage_days.c.day).where(usage_days.c.day == day).limit(1)
        return self._connection.scalar(query) is not None

    def _differ(self, request_id: RequestId, what: str) -> None:
        self.findings.differences.append(f"request {request_id}: {what}")
