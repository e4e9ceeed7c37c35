"""Units that travel through the service: one name per unit, no bare ``int`` in a signature.

A credit is an integer number of micro-dollars (millionths of a US dollar), so sums are exact.
An instant is a reading of a monotonic clock: it means nothing outside its process. A moment is
wall time in whole milliseconds since 1970 UTC: it is for rows that other processes read.
"""

from typing import NewType

Tokens = NewType("Tokens", int)
Credits = NewType("Credits", int)
Seconds = NewType("Seconds", float)
Instant = NewType("Instant", float)
Moment = NewType("Moment", int)

TenantId = NewType("TenantId", str)
KeyId = NewType("KeyId", str)
RequestId = NewType("RequestId", str)
ModelId = NewType("ModelId", str)

MICRO_DOLLARS_PER_DOLLAR = 1_000_000
