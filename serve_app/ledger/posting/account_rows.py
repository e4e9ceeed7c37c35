"""The tenants' credit and the keys' spending of one transaction, for `books`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Executable, Row

from serve_app.domain.units import Credits, KeyId, TenantId
from serve_app.ledger.money import budget
from serve_app.ledger.money.budget import Account, Spending
from serve_app.ledger.money.calendar import month_of
from serve_app.ledger.money.reservation import Reservation
from serve_app.ledger.posting import sql


class AccountRows:
    """The accounts that one transaction has read, with their changes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._accounts: dict[TenantId, Account] = {}
        self._keys: dict[KeyId, Spending] = {}
        self._differences: dict[TenantId, int] = {}
        self._changed_keys: set[KeyId] = set()

    def read(self, statement: Executable, wanted: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """Lock and read accounts; return the rows, which may have more columns."""
        rows = self._connection.execute(statement, wanted).all()
        for row in rows:
            self._accounts[row.tenant_id] = Account(
                row.tenant_id,
                row.available,
                tuple(row.alerts_below),
                Spending(row.monthly_budget_micro_dollars, row.spent_month, row.spent_amount),
            )
        return rows

    def __contains__(self, tenant: TenantId) -> bool:
        return tenant in self._accounts

    def take(self, wanted: Reservation) -> Account:
        """Return the account after the reservation. Raises: SpendCapReached, OutOfCredit."""
        month = month_of(wanted.created_at)
        account = budget.take(self._accounts[wanted.tenant], wanted.amount, month)
        if wanted.key_capped:
            key = budget.spend(self._key(wanted.key_id), wanted.amount, month, "key")
            self._put_key(wanted.key_id, key)
        self._put(account)
        return account

    def give_back(self, known: Reservation, amount: Credits) -> None:
        month = month_of(known.created_at)
        self._put(budget.give_back(self._accounts[known.tenant], amount, month))
        if known.key_capped:
            key = budget.unspend(self._key(known.key_id), amount, month)
            self._put_key(known.key_id, key)

    def take_back(self, tenant: TenantId, amount: Credits) -> None:
        """Undo a refund of ``amount``."""
        account = self._accounts[tenant]
        self._put(replace(account, available=Credits(account.available - amount)))

    def write(self) -> None:
        sql.write(self._connection, sql.WRITE_ACCOUNT, [*map(self._row, self._differences)])
        changed_keys = sorted(self._changed_keys)
        sql.write(self._connection, sql.WRITE_KEY, [*map(self._key_row, changed_keys)])
        self._differences.clear()
        self._changed_keys.clear()

    def _put(self, account: Account) -> None:
        before = self._accounts[account.tenant].available
        change = account.available - before
        self._differences[account.tenant] = self._differences.get(account.tenant, 0) + change
        self._accounts[account.tenant] = account

    def _key(self, key_id: KeyId) -> Spending:
        if key_id not in self._keys:
            row = self._connection.execute(sql.CAPPED_KEY, {"key_id": key_id}).one()
            self._keys[key_id] = Spending(
                row.monthly_budget_micro_dollars, row.spent_month, row.spent_amount
            )
        return self._keys[key_id]

    def _put_key(self, key_id: KeyId, key: Spending) -> None:
        self._keys[key_id] = key
        self._changed_keys.add(key_id)

    def _row(self, tenant: TenantId) -> dict[str, Any]:
        account = self._accounts[tenant]
        return {
            "row_id": tenant,
            "difference": self._differences[tenant],
            "month": account.spending.month,
            "spent": account.spending.amount,
        }

    def _key_row(self, key_id: KeyId) -> dict[str, Any]:
        key = self._keys[key_id]
        return {"row_id": key_id, "month": key.month, "spent": key.amount}
