"""Units of the service, as distinct types for signatures.

Credits are whole micro-dollars, so sums are exact. An instant is a reading of a monotonic clock,
valid only in its process. A moment is wall time in milliseconds since 1970 UTC.
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
Revision = NewType("Revision", str)

NO_REVISION = Revision("")
"""Of requests before revisions were recorded."""

MICRO_DOLLARS_PER_DOLLAR = 1_000_000
