"""The accounts and reservations of one group of operations.

    Books.open ──lock and read── reserve, commit, void, ... ──(rules)── write ──> COMMIT

SQL statements take most of the time, so a group of a hundred requests reads its rows in one or two
statements and writes them in four.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Self

from sqlalchemy import Connection, Row

from serve_app.domain.errors import OutOfCredit, RerankError, ReservationClosed
from serve_app.domain.job import Idempotency
from serve_app.domain.model import RateLimitState
from serve_app.domain.units import Credits, Moment, RequestId, TenantId
from serve_app.ledger.events import outbox
from serve_app.ledger.money import budget, reservation
from serve_app.ledger.money.idempotency import KeyedRequest, stored_outcome
from serve_app.ledger.money.reservation import Reservation, Settlement, State
from serve_app.ledger.posting import rate_limits, refunds, sql
from serve_app.ledger.posting.account_rows import AccountRows
from serve_app.ledger.posting.keyed_requests import Key, KeyedRequests
from serve_app.ledger.posting.rate_limits import NOT_LIMITED, Demand
from serve_app.ports import NO_USAGE, Reserved, StoredOutcome, Usage


class Books:
    """The accounts and reservations of one transaction: `open`, apply operations, `write`."""

    def __init__(self, connection: Connection, *, events: bool) -> None:
        self.connection = connection
        self._events = events
        self._accounts = AccountRows(connection)
        self._keyed = KeyedRequests(connection)
        self._reservations: dict[RequestId, Reservation] = {}
        self._settled: dict[RequestId, dict[str, Any]] = {}
        self._made: dict[RequestId, dict[str, Any]] = {}
        self._charges: dict[RequestId, dict[str, Any]] = {}
        self._uncharged: list[RequestId] = []

    @classmethod
    def open(
        cls,
        connection: Connection,
        tenant_ids: Collection[TenantId],
        request_ids: Collection[RequestId],
        *,
        events: bool = False,
    ) -> Self:
        """Lock and read these reservations, their accounts, and the accounts of these tenants.

        Data that an operation depends on must be read after this call. ``events``: write events to
        the outbox.
        """
        books = cls(connection, events=events)
        tenants, requests = sorted(tenant_ids), sorted(request_ids)
        wanted: dict[str, Any] = {"tenant_ids": tenants, "request_ids": requests}
        known: Sequence[Row[Any]] = ()
        # A list parameter would be expanded on every execution.
        match tenants, requests:
            case [tenant], []:
                books._accounts.read(sql.ACCOUNT, {"tenant_id": tenant})
            case [], [request]:
                only = {"request_id": request}
                known = books._accounts.read(sql.KNOWN_WITH_ACCOUNT, only)
            case _, []:
                books._accounts.read(sql.ACCOUNTS, wanted)
            case [], _:
                known = books._accounts.read(sql.KNOWN_WITH_ACCOUNTS, wanted)
            case _:
                books._accounts.read(sql.ACCOUNTS_AND_THOSE_OF_REQUESTS, wanted)
                known = connection.execute(sql.KNOWN, wanted).all()
        for row in known:
            books._reservations[row.id] = sql.reservation_of(row)
        return books

    def read_keys(self, keys: Collection[Key]) -> None:
        """Read the requests with these idempotency keys; their accounts must be open."""
        requests = self._keyed.read(keys)
        if requests:
            wanted = {"request_ids": sorted(requests)}
            for row in self.connection.execute(sql.KNOWN, wanted).all():
                self._reservations[row.id] = sql.reservation_of(row)

    def reserve(
        self,
        wanted: Reservation,
        demand: Demand = NOT_LIMITED,
        idempotency: Idempotency | None = None,
    ) -> Reserved:
        """Reserve ``wanted.amount``, or return the stored outcome if it repeats a charged request.

        Raises:
            ReservationClosed
            IdempotencyKeyInUse, IdempotencyKeyReused, ConcurrencyLimited, RateLimited, TooLarge,
                SpendCapReached, OutOfCredit: They carry the rate limits without this request.
        """
        if not reservation.must_reserve(self._reservations.get(wanted.request_id), wanted):
            return Reserved()
        try:
            if idempotency is None:
                return Reserved(self._reserve(wanted, demand))
            return self._reserve_once(wanted, demand, idempotency)
        except RerankError as refusal:
            refusal.states = refusal.states or rate_limits.states(self.connection, wanted, demand)
            raise

    def _reserve_once(
        self, wanted: Reservation, demand: Demand, idempotency: Idempotency
    ) -> Reserved:
        key = (wanted.tenant, idempotency.key_sha256)
        request = KeyedRequest(wanted.request_id, idempotency.request_sha256, wanted.created_at)
        known = self._keyed.get(key)
        reserved = self._reservations.get(known.request_id) if known else None
        outcome = stored_outcome(known, reserved, request)
        if known is not None and outcome is not None:
            states = rate_limits.states(self.connection, wanted, demand)
            return Reserved(states, known.request_id, outcome)
        states = self._reserve(wanted, demand)
        self._keyed.begin(key, request)
        return Reserved(states)

    def _reserve(self, wanted: Reservation, demand: Demand) -> tuple[RateLimitState, ...]:
        if wanted.tenant not in self._accounts:
            raise OutOfCredit(wanted.amount, Credits(0))
        if demand.counts_running:
            self.write()  # The check counts rows of the table.
        admitted = rate_limits.check(self.connection, wanted, demand)
        account = self._accounts.take(wanted)
        rate_limits.count(self.connection, admitted)
        below = budget.crossed(account, wanted.amount)
        if below is not None:
            outbox.report_low_credit(
                self.connection, wanted, account.available, below, events=self._events
            )
        self._reservations[wanted.request_id] = wanted
        self._made[wanted.request_id] = sql.reserved_row(wanted)
        return admitted.states

    def commit(
        self,
        request_id: RequestId,
        amount: Credits,
        usage: Usage,
        now: Moment,
        stored: StoredOutcome | None = None,
    ) -> None:
        """Charge ``amount``, release the rest, and keep ``stored``. Raises: ReservationClosed."""
        known = self._reservations.get(request_id)
        settlement = reservation.commit(known, amount)
        if known is None or settlement is None:
            return
        self._end(known, settlement, usage, now)
        self._charges[request_id] = sql.charged_row(known, amount, usage, now)
        if stored is not None:
            key = (known.tenant, stored.idempotency.key_sha256)
            self._keyed.store(key, request_id, stored.outcome)

    def replay(self, request_id: RequestId, idempotency: Idempotency) -> None:
        """Make a charge final, because its stored outcome answers a repeat.

        Raises: ReservationClosed if the charge was taken back.
        """
        known = self._reservations.get(request_id)
        if known is None or known.state is not State.COMMITTED:
            raise ReservationClosed(known.state if known else reservation.UNKNOWN)
        self._keyed.mark_replayed((known.tenant, idempotency.key_sha256), request_id)

    def void(self, request_id: RequestId, usage: Usage, now: Moment) -> None:
        known = self._reservations.get(request_id)
        settlement = reservation.void(known)
        if known is not None and settlement is not None:
            self._end(known, settlement, usage, now)

    def reverse(
        self,
        request_id: RequestId,
        usage: Usage,
        now: Moment,
        idempotency: Idempotency | None = None,
    ) -> None:
        """Void the reservation and take back its charge, unless that is final; see `replay`."""
        known = self._reservations.get(request_id)
        settlement = reservation.reverse(known)
        if known is None or settlement is None:
            return
        if idempotency is not None and self._keyed.is_replayed(
            (known.tenant, idempotency.key_sha256), request_id
        ):
            return
        if known.state is State.COMMITTED and self._charges.pop(request_id, None) is None:
            self._uncharged.append(request_id)
        self._end(known, settlement, usage, now)
        if request_id in self._uncharged:
            self._take_back_refunds(known, now)

    def expire(self, now: Moment) -> int:
        count = 0
        for known in list(self._reservations.values()):
            settlement = reservation.expire(known, now)
            if settlement is not None:
                self._end(known, settlement, NO_USAGE, now)
                count += 1
        return count

    def write(self) -> None:
        self._write_rows()
        self._keyed.write()
        self._accounts.write()
        for changes in (self._made, self._settled, self._charges):
            changes.clear()
        self._uncharged.clear()

    def _write_rows(self) -> None:
        sql.write(self.connection, sql.RESERVE, [*self._made.values()])
        sql.write(self.connection, sql.SETTLE, [*self._settled.values()])
        if self._uncharged:
            sql.write(self.connection, sql.UNCHARGE, [{"row_id": each} for each in self._uncharged])
            outbox.take_back(self.connection, self._uncharged)
        rows = [*self._charges.values()]
        sql.write(self.connection, sql.CHARGE, rows)
        if rows and self._events:
            outbox.emit_charges(self.connection, rows)

    def _end(self, known: Reservation, settlement: Settlement, usage: Usage, now: Moment) -> None:
        if settlement.returned:
            self._accounts.give_back(known, settlement.returned)
        state, charged = settlement.state, settlement.charged
        self._reservations[known.request_id] = replace(known, state=state, charged=charged)
        made = self._made.get(known.request_id)
        if made is not None:
            made.update(
                state=state.value,
                charged=charged,
                documents=usage.documents,
                tokens=usage.tokens,
                settled_at=now,
            )
            return
        self._settled[known.request_id] = sql.settled_row(
            known.request_id, state, charged, usage, now
        )

    def _take_back_refunds(self, known: Reservation, now: Moment) -> None:
        """Take refunds back, because the whole charge is returned."""
        amount = refunds.refunded(self.connection, known.request_id)
        if amount:
            self._accounts.take_back(known.tenant, amount)
            refunds.take_back(self.connection, known.tenant, known.request_id, amount, now)
