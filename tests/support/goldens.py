"""The golden files: requests in the folders `WIRE_FORMATS`, with the answers that clients rely on.

A case is ``{"about", "request": {method, path, key, headers, body | raw_body}, "answer"}``. With
``before``, which changes the request, another request is sent first. The idempotency key
``key_in_use`` belongs to a running request. After a deliberate change of the API, ``python -m
tests.support.goldens`` rewrites the answers. Review the difference before you commit it.
"""

import json
from pathlib import Path
from typing import Any

import httpx

from tests.support.app import FakeApp

FOLDER = Path(__file__).parents[1] / "contract"
WIRE_FORMATS = ("rerank", "score", "tei", "infinity", "nvidia", "voyage")
HEADERS = (
    *("content-type", "retry-after", "www-authenticate", "allow", "accept-encoding"),
    *("server-timing", "x-compute-tokens", "idempotent-replayed"),
)

Case = dict[str, Any]


def cases() -> dict[str, Case]:
    """Return all cases by folder and file name."""
    return {
        f"{wire_format}/{path.stem}": json.loads(path.read_text("utf-8"))
        for wire_format in WIRE_FORMATS
        for path in sorted((FOLDER / wire_format).glob("*.json"))
    }


def answer(case: Case) -> Case:
    """Return the answer of a new application to the request of ``case``."""
    request = case["request"]
    app = FakeApp(granted=case.get("granted", 1_000_000))
    app.ledger.key_in_use = case.get("key_in_use")
    try:
        if "before" in case:
            assert _send(app, request | case["before"]).status_code == 200
        return _case(_send(app, request))
    finally:
        app.close()


def _send(app: FakeApp, request: Case) -> httpx.Response:
    return app.send(
        request.get("method", "POST"),
        request.get("path", "/v1/rerank"),
        key=request.get("key", "rk-good"),
        headers=request.get("headers"),
        body=request["raw_body"].encode() if "raw_body" in request else request.get("body"),
    )


def _case(response: httpx.Response) -> Case:
    headers = {name: response.headers[name] for name in HEADERS if name in response.headers}
    return {"status": response.status_code, "headers": headers, "body": response.json()}


def rewrite() -> None:
    for name, case in cases().items():
        case["answer"] = answer(case)
        text = json.dumps(case, indent=2, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    rewrite()
