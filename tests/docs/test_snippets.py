"""Every command and program in the docs runs, and every answer has the documented form."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from serve_app.access.api_keys import SCOPE_ADMIN
from testkit.service import Service, environment
from tests.support.snippets import PAGES, ROOT, snippets

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

ADDRESS = "http://127.0.0.1:8000"
"""The address in the docs. Tests use another port."""

RUN = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
WITH_COMMANDS = [page for page in PAGES if any(each.language in RUN for each in snippets(page))]


@pytest.fixture(scope="module")
def variables(service: Service) -> dict[str, str]:
    """The environment of the commands, with what the docs expect a reader to have."""
    with service.client() as client:
        answer = client.post("/v1/rerank", json={"query": "a", "documents": ["b"]}).json()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
    return environment(
        service.var_dir,
        PATH=path,
        PYTHONPATH=str(ROOT),
        RERANK_ADDRESS=service.address,
        RERANK_API_KEY=service.key,
        ADMIN_KEY=service.new_key("administrators", scope=SCOPE_ADMIN),
        REQUEST_ID=answer["id"],
    )


def run(service: Service, variables: dict[str, str], command: list[str]) -> str:
    """Run a command in the folder of the service, and return what it prints."""
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        cwd=service.var_dir.parent,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, "\n".join((*command, done.stdout, done.stderr))
    return done.stdout


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_of_a_page_run_and_print_what_it_shows(
    page: Path, service: Service, variables: dict[str, str]
) -> None:
    printed = ""
    for snippet in snippets(page):
        if snippet.language in RUN and snippet.reason is None:
            text = snippet.text.replace(ADDRESS, service.address)
            printed = run(service, variables, [*RUN[snippet.language], text])
            assert page.name == "errors.md" or '"error"' not in printed, printed
        elif snippet.language == "json":
            assert form(json.loads(printed)) == form(json.loads(snippet.text)), printed


def form(value: Any) -> Any:
    """Return the keys and types of a JSON value, with one entry of each list."""
    match value:
        case dict():
            return {key: form(each) for key, each in value.items()}
        case list():
            return [form(each) for each in value[:1]]
        case _:
            return type(value).__name__


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["bash", str(ROOT / "examples/curl.sh")], '"relevance_score"'),
        ([sys.executable, str(ROOT / "examples/python_client.py")], "The Eiffel Tower is 330"),
        (
            [sys.executable, str(ROOT / "examples/retrieve_and_rerank.py")],
            "Reranked:",
        ),
    ],
    ids=["curl", "python", "retrieve"],
)
def test_an_example_runs(
    command: list[str], expected: str, service: Service, variables: dict[str, str]
) -> None:
    assert expected in run(service, variables, command)
