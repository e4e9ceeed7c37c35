"""The page about conformance, from the reports in ``benchmarks/results/conformance``.

The reports of a server are in a folder with its name.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from conformance.checks import CHECKS
from conformance.families import FAMILIES

Reports = Mapping[str, Mapping[str, Any]]
"""The reports of one server by family."""

REPORTS = Path(__file__).parents[1] / "benchmarks/results/conformance"
OURS = "rerank-serve"
BASE_URLS = {"infinity": "http://HOST:8000/infinity", "voyage": "http://HOST:8000/voyage"}

PAGE = """\
# Conformance

`rerank-conformance` checks whether a rerank server has the API that its clients expect.
A *family* is a group of clients with the same routes and fields, such as those of Cohere's API v2.
The command uses only the server's HTTP API, so it can check any server:

```bash
python -m conformance --base-url http://127.0.0.1:8000 --family cohere-v2 --model embedded \\
  --usage-url http://127.0.0.1:8000/v1/usage --usage-field charged_micro_dollars
```

The API key is in `RERANK_API_KEY` or `--api-key`.
The command prints the outcome of each check, and what was expected where one fails.
It exits with status 1 if a check fails.
A check of something that the family does not define is *not applicable*, and a check that needs an
option is *not run* without it. Neither is a failure.

| group | question |
|---|---|
| `wire` | Do requests and answers have the fields and types that clients use? |
| `errors` | Is a bad request refused with the family's status and body? |
| `scores` | Does a score depend only on its query and document? |
| `metering` | Do usage and charges match the documents, and is every accepted option applied? |
| `browsers` | Can a web page call the server (CORS)? |
| `retries` | Does a client learn when to repeat a request? |

The checks of a family cover what its clients read and what its API reference describes.
A server may offer more.
"""
OPTIONS = """
## Options

- The base URL is what comes before the path of the family; a `/v1` at its end is allowed.
- `metering.refused` and `metering.charge` read the charges from `--usage-url`: the sum of all
  fields in its answer with the name `--usage-field`.
- `retries` sends requests with `--limited-api-key` until one is answered with 429.
- A request that is answered with 429 or 503 is repeated after `Retry-After`.
"""
RESULTS = """
## Results

Both servers ran on CPUs with the model `embedded`. Infinity loaded it from the folder that
`rerank-serve models export` writes.
The versions of Infinity and of its libraries are in `benchmarks/service/peer_server.py`. It ran
with an API key, with its own defaults, and with `--lengths-via-tokenize`, so that it counts tokens.
To add or update a column, write the reports with
`--json benchmarks/results/conformance/SERVER/FAMILY.json`, and run `make docs`.

| family | {servers} |
|---|{rule}|
"""


CHECK_TABLE = """
## Checks

A server passes a check if it passes it in each of its families that defines it.

| check | what the server does | {servers} |
|---|---|{rule}|
"""
FAILURES = """
## Failed checks

| server | check | expected | actual |
|---|---|---|---|
"""
WORST_FIRST = ("failed", "not run", "passed", "not applicable")


def page(note: str, options: str) -> Iterator[str]:
    """Yield the parts of the page; ``options`` is the description of the command."""
    yield PAGE + note
    yield "\n## Families\n\n| family | path | base URL of rerank-serve | clients |\n"
    yield "|---|---|---|---|\n"
    for family in FAMILIES.values():
        base_url = BASE_URLS.get(family.name, "http://HOST:8000")
        yield f"| `{family.name}` | `{family.path}` | `{base_url}` | {family.clients} |\n"
    yield OPTIONS
    yield options
    yield from _results(_reports())


def _reports() -> dict[str, Reports]:
    """Return the reports by server, ours first."""
    servers: dict[str, dict[str, Any]] = {OURS: {}}
    for path in sorted(REPORTS.glob("*/*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        servers.setdefault(path.parent.name, {})[report["family"]] = report
    return dict(servers)


def _results(servers: Mapping[str, Reports]) -> Iterator[str]:
    columns = {"servers": " | ".join(servers), "rule": "|".join("---" for _ in servers)}
    yield RESULTS.format_map(columns)
    for family in FAMILIES:
        shares = [_share(reports.get(family)) for reports in servers.values()]
        yield f"| `{family}` | {' | '.join(shares)} |\n"
    yield CHECK_TABLE.format_map(columns)
    for check in CHECKS:
        outcomes = [_outcome(reports, check.name) for reports in servers.values()]
        yield f"| `{check.name}` | {check.meaning} | {' | '.join(outcomes)} |\n"
    yield FAILURES
    for server, reports in servers.items():
        for report in reports.values():
            for result in _of_outcome(report, "failed"):
                cells = (server, f"`{result['name']}`", result["expected"], result["actual"])
                yield f"| {' | '.join(map(_cell, cells))} |\n"


def _share(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return ""
    return f"{report['passed']} of {report['passed'] + report['failed']} passed"


def _outcome(reports: Reports, name: str) -> str:
    """Return the worst outcome of a check in the families of a server."""
    found = {
        result["outcome"]
        for report in reports.values()
        for result in report["results"]
        if result["name"] == name
    }
    return next((each for each in WORST_FIRST if each in found), "")


def _of_outcome(report: Mapping[str, Any], outcome: str) -> list[Mapping[str, str]]:
    return [result for result in report["results"] if result["outcome"] == outcome]


def _cell(text: str) -> str:
    return text.replace("|", "&#124;").replace("<", "&lt;")
