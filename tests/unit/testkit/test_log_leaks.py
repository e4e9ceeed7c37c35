from pathlib import Path

import pytest

from serve_app.access import api_keys
from serve_app.domain.units import KeyId
from testkit.log_leaks import (
    DOCUMENT_MARKER,
    EVENTS_TOKEN,
    OUTPUT_FILE,
    QUERY_MARKER,
    leaks_in_logs,
    leaks_in_text,
)

KEY = api_keys.ApiKey(KeyId("0123456789ab"), "7e" * api_keys.SECRET_BYTES)
CLEAN = f"""\
{{"event": "rerank_request", "status": 200, "key_id": "{KEY.key_id}", "tokens": 58}}
INFO gateway: refused {KEY}
The worker died. Lease ID: 03000000e7be7f70d39bc47c9c0f255d989800249cd53f9430c54c4e025a9117
127.0.0.1:5000 [29/Nov/2026:00:00:00.000] http-rerank 0/0/0/5/5 200 "POST /v1/rerank HTTP/1.1"
The Authorization header is missing. Send a bearer token.
"""
LEAKS = [
    (f"got {KEY.reveal()}", "API key"),
    (f"got {KEY.reveal()[:24]}", "API key"),
    (f"secret={KEY.secret}", "secret of an API key"),
    ("headers: Authorization: Basic dTpw", "Authorization header"),
    ("(b'authorization', b'Bearer abcdefgh')", "Authorization header"),
    ('{"x-api-key": "abc"}', "Authorization header"),
    ("sent bearer abcdefgh", "Authorization header"),
    (f"posting with {EVENTS_TOKEN}", "events token"),
    (f"GET /search?q={QUERY_MARKER}", "query text"),
    (f'{{"documents": ["a {DOCUMENT_MARKER} b"]}}', "document text"),
]


def test_a_log_without_secrets_has_no_leaks() -> None:
    assert leaks_in_text(CLEAN) == []


@pytest.mark.parametrize(("line", "kind"), LEAKS)
def test_every_kind_of_leak_is_found_with_its_line(line: str, kind: str) -> None:
    assert f"6: {kind}" in leaks_in_text(f"{CLEAN}{line}\n")


@pytest.mark.parametrize(
    "name", ["haproxy.log", "var/ray/logs/serve/replica.log.1", "worker.out", "worker.err"]
)
def test_log_files_of_every_kind_and_depth_are_searched(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{CLEAN}{QUERY_MARKER}")

    assert leaks_in_logs(tmp_path) == [f"{path}:6: query text"]
    path.unlink()  # Otherwise the log check of the test run would find it.


def test_only_the_output_of_up_may_show_the_first_key(tmp_path: Path) -> None:
    shown = (
        f"  key:           {KEY.reveal()}\n  -H 'Authorization: Bearer {KEY.reveal()}' -H 'a: b'\n"
    )
    (tmp_path / OUTPUT_FILE).write_text(shown)
    assert leaks_in_logs(tmp_path) == []

    other = tmp_path / "other.log"
    other.write_text(shown)
    assert {leak.partition(": ")[2] for leak in leaks_in_logs(tmp_path)} == {
        "API key",
        "secret of an API key",
        "Authorization header",
    }
    other.unlink()
