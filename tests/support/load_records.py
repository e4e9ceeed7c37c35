"""Requests as the load tests record them."""

from typing import Any

import numpy as np

from loadtests.records import Records, Row, Table

BLANK = Row(
    at_s=0,
    schedule_error_s=0.001,
    latency_s=0.1,
    status=200,
    correct=1,
    documents=10,
    tokens=670,
    queue_s=0.02,
    run_s=0.03,
    micro_dollars=20,
    kind=0,
    tenant=0,
    tier=0,
)


def table(**columns: Any) -> Table:
    """Return requests with these values; other fields have those of `BLANK`."""
    records = Records()
    for values in zip(*(np.asarray(each).tolist() for each in columns.values()), strict=True):
        records.add(BLANK._replace(**dict(zip(columns, values, strict=True))))
    return records.table()
