"""LiteLLM's proxy in front of the service, called with plain HTTP."""

import atexit
import json
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
from worker import MODEL, RETRIES, Call, Reply, serve

FOLDER = Path(tempfile.mkdtemp())
START_S_MAX = 90
MASTER_KEY = f"sk-{secrets.token_hex()}"
_proxies: dict[str, str] = {}
"""The address of the proxy by that of the service."""


def rerank(call: Call) -> Reply:
    if call.address not in _proxies:
        _proxies[call.address] = start(call.address)
    answer = httpx.post(
        f"{_proxies[call.address]}/v1/rerank",
        json={
            "model": MODEL,
            "query": call.query,
            "documents": call.documents,
            "top_n": call.top_n,
            "return_documents": True,
            "api_key": call.key,
        },
        headers={"Authorization": f"Bearer {MASTER_KEY}"},
        timeout=60,
    )
    answer.raise_for_status()
    body = answer.json()
    return {
        "indices": [each["index"] for each in body["results"]],
        "texts": [each["document"]["text"] for each in body["results"]],
        "usage": body["meta"]["billed_units"],
        "log": str(FOLDER / "costs.jsonl"),
    }


def start(address: str) -> str:
    """Run the proxy and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    config = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"jina_ai/{MODEL}",
                    "api_base": address,
                    "api_key": "set by each call",
                    "configurable_clientside_auth_params": ["api_key"],
                },
                "model_info": {
                    "mode": "rerank",
                    "input_cost_per_token": 1e-6,  # as in tests/clients/accounts.py
                },
            }
        ],
        "litellm_settings": {"callbacks": "litellm_costs.recorder"},
        "general_settings": {"master_key": MASTER_KEY},
        "router_settings": {"num_retries": RETRIES},
    }
    (FOLDER / "config.yaml").write_text(json.dumps(config))
    shutil.copy(Path(__file__).with_name("litellm_costs.py"), FOLDER)
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("litellm"),
            *("--config", FOLDER / "config.yaml"),
            *("--host", "127.0.0.1", "--port", str(port)),
        ],
        stdout=sys.stderr,
    )
    atexit.register(process.terminate)
    found = f"http://127.0.0.1:{port}"
    give_up = time.monotonic() + START_S_MAX
    while time.monotonic() < give_up:
        try:
            if httpx.get(f"{found}/health/liveliness").is_success:
                return found
        except httpx.TransportError:
            time.sleep(0.5)
    raise TimeoutError("the proxy did not start")


serve({"proxy": rerank})
