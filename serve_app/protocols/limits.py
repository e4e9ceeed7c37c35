"""Limits on one request, which ``GET /v1/models`` shows to clients."""

from dataclasses import dataclass

from serve_app.domain.units import Seconds
from serve_app.protocols.json_body import DEFAULT_LIMITS, JsonLimits


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on a request's size and duration."""

    body_bytes_max: int
    documents_per_request_max: int
    query_characters_max: int
    """Unicode code points."""

    request_timeout_s: Seconds
    request_timeout_s_max: Seconds
    body_timeout_s: Seconds

    @property
    def json(self) -> JsonLimits:
        """Limits on JSON, which grow with the maximum of documents and bytes.

        Each document above 1,000 allows 25 more strings and 64 more characters outside of them:
        enough for ten fields, but not for their indentation.
        """
        more = max(0, self.documents_per_request_max - 1_000)
        return JsonLimits(
            DEFAULT_LIMITS.strings_max + 25 * more,
            DEFAULT_LIMITS.outside_strings_characters_max + 64 * more,
            max(DEFAULT_LIMITS.escapes_max, self.body_bytes_max // 5),
        )
