"""Large bodies are parsed, and large answers rendered, in a thread and not on the event loop."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from serve_app.http.rerank.endpoint import BODY_BYTES_ON_LOOP_MAX, RESULTS_ON_LOOP_MAX
from tests.support.app import LIMITS, FakeApp

LARGE = replace(LIMITS, documents_per_request_max=1_000, body_bytes_max=1_000_000)


@pytest.mark.parametrize(
    ("documents", "top_n", "in_thread"),
    [
        (["a"], None, []),
        (["a"] * RESULTS_ON_LOOP_MAX, None, []),
        (["a"] * (RESULTS_ON_LOOP_MAX + 1), None, ["render"]),
        (["a"] * (RESULTS_ON_LOOP_MAX + 1), 1, []),
        (["a" * BODY_BYTES_ON_LOOP_MAX], None, ["_parse", "render"]),
    ],
)
def test_what_is_large_is_processed_in_a_thread(
    documents: list[str],
    top_n: int | None,
    in_thread: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = FakeApp(limits=LARGE)
    submit, names = app.threads.submit, list[str]()

    def recording(work: Callable[..., Any], *args: Any) -> Any:
        if isinstance(work, partial):  # Tokenizing is submitted as a method.
            names.append(work.func.__name__)
        return submit(work, *args)

    monkeypatch.setattr(app.threads, "submit", recording)
    answer = app.rerank(documents=documents, top_n=top_n, return_documents=True)
    app.close()

    assert answer.status_code == 200
    assert len(answer.json()["results"]) == (top_n or len(documents))
    assert names == in_thread
