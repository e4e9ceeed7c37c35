"""What the clients measured, stored compactly as one row of numbers for each request."""

from array import array
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Row(NamedTuple):
    """One request that was answered or failed. Times are in seconds."""

    at_s: float
    """Scheduled time, since the start of the run."""

    schedule_error_s: float
    """Time from the scheduled one until the request was sent."""

    latency_s: float
    """Time from the scheduled one until the answer was complete."""

    status: float
    """HTTP status; 0 without an answer."""

    correct: float
    """1 for status 200 with all results in order, else 0."""

    documents: float
    tokens: float
    """Tokens that the server counted; NaN if it did not say."""

    queue_s: float
    """Wait in the service's queues, from ``Server-Timing``; NaN if the server did not say."""

    run_s: float
    """Time of the forward passes, from ``Server-Timing``; NaN if the server did not say."""

    micro_dollars: float
    """Charge of the request; NaN if the server did not say."""

    kind: float
    """Index of the class."""

    tenant: float
    tier: float


Table = Mapping[str, NDArray[np.float64]]
"""The columns by the names of the fields of `Row`."""


class Records:
    """Rows of one process, or of all of them."""

    def __init__(self) -> None:
        self._values = array("d")

    def __len__(self) -> int:
        return len(self._values) // len(Row._fields)

    def add(self, row: Row) -> None:
        self._values.extend(row)

    def extend(self, rows: bytes) -> None:
        """Add rows from `take`, perhaps of another process."""
        self._values.frombytes(rows)

    def take(self) -> bytes:
        """Remove all rows and return them."""
        rows = self._values.tobytes()
        self._values = array("d")
        return rows

    def table(self, first: int = 0) -> Table:
        """Return the rows from ``first`` on, in the order of their scheduled times."""
        values = np.array(self._values[first * len(Row._fields) :], dtype=np.float64)
        values = values.reshape(-1, len(Row._fields))
        return dict(
            zip(Row._fields, values[np.argsort(values[:, 0], kind="stable")].T, strict=True)
        )


def select(table: Table, rows: NDArray[np.bool_]) -> Table:
    """Return these rows of a table."""
    return {name: column[rows] for name, column in table.items()}
