"""Find secrets and customers' texts in the logs of services that tests start.

Every query that a test sends to a running service contains `QUERY_MARKER`, every document contains
`DOCUMENT_MARKER`, and every event sink requires `EVENTS_TOKEN`. Logs must contain none of them.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from serve_app.access.api_keys import ID_CHARACTERS, SECRET_BYTES

QUERY_MARKER = "qqsecretquery"
DOCUMENT_MARKER = "ddsecretdocument"
# Not a real secret.
EVENTS_TOKEN = "ttsecrettoken"  # noqa: S105  # nosec B105

OUTPUT_FILE = "output.txt"
"""File with the output of ``rerank-serve up``, which shows the first API key."""

_LOG_FILE = re.compile(r".+\.(log|out|err|txt)(\.\d+)?")
_FIRST_KEY = re.compile(r"^  (key: +|-H 'Authorization: Bearer )rk_.*$", re.MULTILINE)

_LEAKS = {
    "API key": re.compile(rf"rk_[0-9a-z]{{{ID_CHARACTERS}}}_[0-9a-f]{{4}}"),
    # Excludes Ray's lease ids of the same length, which begin with a little-endian 4-byte counter.
    "secret of an API key": re.compile(
        rf"(?<![0-9a-f])(?![0-9a-f]{{4}}0000)[0-9a-f]{{{2 * SECRET_BYTES}}}(?![0-9a-f])"
    ),
    "Authorization header": re.compile(
        r"\bbearer\s+\S{8}|\b(authorization|x-api-key)\b['\"]?\s*[:=,]\s*\S", re.IGNORECASE
    ),
    "events token": re.compile(EVENTS_TOKEN),
    "query text": re.compile(QUERY_MARKER),
    "document text": re.compile(DOCUMENT_MARKER),
}


def leaks_in_text(text: str) -> list[str]:
    """Return the line number and kind of each leak in ``text``, without the leaked text."""
    return [
        f"{number}: {kind}"
        for number, line in enumerate(text.split("\n"), start=1)
        for kind, pattern in _LEAKS.items()
        if pattern.search(line)
    ]


def leaks_in_logs(folder: Path) -> list[str]:
    """Return the file, line number and kind of each leak in the log files below ``folder``.

    The first API key is allowed in the output of ``rerank-serve up``.
    """
    leaks = []
    for path in _log_files(folder):
        text = path.read_text(errors="replace")
        if path.name == OUTPUT_FILE:
            text = _FIRST_KEY.sub("", text)
        leaks += [f"{path}:{leak}" for leak in leaks_in_text(text)]
    return leaks


def _log_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if _LOG_FILE.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            yield path
