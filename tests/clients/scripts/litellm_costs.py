"""A callback of LiteLLM's proxy that logs the costs that the proxy has computed."""

import json
from pathlib import Path
from typing import Any

from litellm.integrations.custom_logger import CustomLogger

LOG = Path(__file__).with_name("costs.jsonl")


class Recorder(CustomLogger):
    """Appends the cost of each answered request to a file."""

    async def async_log_success_event(
        self, kwargs: dict[str, Any], response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        with LOG.open("a") as file:
            file.write(json.dumps(kwargs["response_cost"]) + "\n")


recorder = Recorder()
