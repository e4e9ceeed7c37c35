"""The page about faults of a cluster, from the results of ``python -m tests.chaos.lab``."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks/results/lab-faults.json"

PAGE = """\
# Faults of a cluster

This page lists how faults affect the clients of a cluster that runs `cluster/production.yaml`.
The cluster has two gateways and two scorers, one spare node for scorers and none for gateways,
PostgreSQL, and Redis for the state of Ray's head.
[The lab](lab.md) injected the faults under a steady load through every node's HAProxy.
Its clients repeat a request that got no answer, or 409, 429 or 5xx, with the same
[`Idempotency-Key`](../api/errors.md#idempotency-keys).
If an HAProxy fails the checks that a load balancer makes every second, they use another one.
A request *failed* if no attempt was answered with 200.

In these runs, {answered_200} of {requests} requests were answered with 200, and the ledger has
{charges} charges.
A comparison of every answer with its charge, to the micro-dollar, found {violations} differences.

A request gets no answer if the gateway that processes it dies.
The client then repeats the request, and it is charged once in all.
If the first attempt was charged before the gateway died, the repeat is answered at once.
Otherwise it is answered after the reservation of the first attempt has expired, about a minute
later.

*Full capacity* is the time from the fault until as many replicas as before were running.
Replicas on other nodes count, even if the fault itself lasted longer.
If a node was only disconnected and its replicas kept running, it is the time until the node's
HAProxy answered again.
"""
HEADER = """
| fault | what clients see | full capacity | what the operator sees | what to do |
|---|---|---|---|---|
"""
SEQUENCES = """
## Random sequences

With `--sequence`, the lab injects brief faults in random order.
Each fault begins soon after the recovery from the previous one.

| seed | faults | kinds | requests | failed | differences between answers and charges |
|---|---|---|---|---|---|
"""
SERVE = "`serve status`"
NODE_AWAY = f"`ray status` and {SERVE} show a lost node and its replicas."
START = "Start Ray on the node again."
NOTHING = "Nothing."

TEXTS: Mapping[str, tuple[str, str]] = {
    "scorer killed": (f"{SERVE} shows a replica that starts.", NOTHING),
    "gateway killed": (f"{SERVE} shows a replica that starts.", NOTHING),
    "gateway out of memory": (
        "The kernel's log names the process; the gateway starts again.",
        "Give it more memory, or lower `body_bytes_max`.",
    ),
    "scorer node killed for 20 s": (NODE_AWAY, START),
    "gateway node killed for 20 s": (NODE_AWAY, f"{START} Keep a spare node for gateways."),
    "controller killed": ("The logs of the head show a new controller.", NOTHING),
    "head killed for 10 s": (
        "`ray status` and `serve status` do not answer.",
        "Start the head again with its command and address.",
    ),
    "head killed for 90 s": (
        "`ray status` and `serve status` do not answer. No replica is replaced meanwhile.",
        "Start the head again within ten minutes: the nodes wait that long.",
    ),
    "scorer node without power for 30 s": (f"{NODE_AWAY} `rerank_portion_hedges` rises.", START),
    "gateway node without power for 30 s": (NODE_AWAY, f"{START} Keep a spare node for gateways."),
    "scorer frozen for 30 s": (
        "`rerank_portion_hedges` rises.",
        "If this persists, kill the process; Ray starts another one.",
    ),
    "gateway frozen for 30 s": (
        "HAProxy's statistics show the gateway as down.",
        "If this persists, kill the process; Ray starts another one.",
    ),
    "scorer node frozen for 30 s": (
        "`rerank_portion_hedges` rises.",
        "Nothing. After a minute, Ray's head declares a silent node dead: then start it again.",
    ),
    "scorer node cut off for 20 s": ("`rerank_portion_hedges` rises.", NOTHING),
    "gateway node cut off for 20 s": ("HAProxy's statistics show the gateway as down.", NOTHING),
    "scorer node cut off for good": (
        f"{NODE_AWAY} After a minute, Ray's head declares a silent node dead.",
        "Repair the network. Ray ends on a node that was declared dead: start it again.",
    ),
    "scorer node with 200 ms delay and 5 % loss for 30 s": (
        "`rerank_stage_seconds` of `score` and `rerank_portion_hedges` rise.",
        "Take the node out with `rerank-serve drain`, and repair its network.",
    ),
    "gateway node with 200 ms delay and 5 % loss for 30 s": (
        "`rerank_stage_seconds` of all stages rises for this gateway.",
        "Take the node out with `rerank-serve drain`, and repair its network.",
    ),
    "scorer node with a notice of 120 s": (
        f"{SERVE} shows replicas that move to another node.",
        "Pass the notice on with `rerank-serve drain --seconds`.",
    ),
    "gateway node with a notice of 120 s": (
        f"{SERVE} shows replicas that move to another node.",
        "Pass the notice on, and keep a spare node. Without a spare node, the gateway stops"
        " `graceful_shutdown_timeout_s` before the node ends.",
    ),
    "clock of a gateway node 30 s ahead for 30 s": (
        "Log entries with wrong times, and possibly 503 `reservation_closed`.",
        "Synchronize the clocks (NTP).",
    ),
    "disk of a gateway node full for 30 s": (
        "Log entries are missing.",
        "Free some space, and rotate the logs.",
    ),
    "HAProxy killed": ("The node's Serve logs show a new HAProxy.", NOTHING),
    "database killed for 5 s": ("The alert `RerankLedgerAway`.", "Start the database."),
    "database restarted": ("503 `ledger_unavailable` for a moment.", NOTHING),
    "database failed over": (
        "503 `ledger_unavailable` until the standby has the address.",
        "Use synchronous replication; otherwise charges are lost. Never give the old primary its"
        " address again.",
    ),
    "all replicas replaced": (f"{SERVE} shows replicas that start and stop.", NOTHING),
    "scaled down for 20 s": (f"{SERVE} shows replicas that stop.", NOTHING),
}
"""What the operator sees, and what to do, for each fault."""


def page(note: str) -> Iterator[str]:
    """Yield the parts of the page."""
    runs = json.loads(RESULTS.read_text(encoding="utf-8"))["runs"]
    ledgers = [run["ledger"] for run in runs]
    counts = {
        name: f"{sum(each[name] for each in ledgers):,}"
        for name in ("requests", "answered_200", "charges")
    }
    violations = sum(len(each["violations"]) for each in ledgers)
    yield PAGE.format_map(counts | {"violations": violations or "no"})
    yield note + HEADER
    alone = [run for run in runs if "seed" not in run]
    results = {each["fault"]: each for run in alone for each in run["faults"]}
    for fault, (seen, advice) in TEXTS.items():
        if fault in results:
            cells = (fault, _clients(results[fault]), _capacity(results[fault]), seen, advice)
            yield f"| {' | '.join(cells)} |\n"
    sequences = [run for run in runs if "seed" in run]
    if sequences:
        yield SEQUENCES
    for run in sequences:
        yield f"| {' | '.join(f'{each:,}' for each in _sequence(run))} |\n"


def _sequence(run: Mapping[str, Any]) -> tuple[int, ...]:
    faults, ledger = run["faults"], run["ledger"]
    return (
        *(run["seed"], len(faults), len({each["fault"] for each in faults})),
        *(ledger["requests"], ledger["requests"] - ledger["answered_200"]),
        len(ledger["violations"]),
    )


def _clients(result: Mapping[str, Any]) -> str:
    """Describe what happened to the requests of the newest run of a fault."""
    outcomes = ", ".join(result["first_outcomes"])
    text = _counts(result["sent"], result["failed"], result["repeated"], outcomes)
    text += f" Slowest: {result['slowest_s']:.1f} s."
    if result["own_repeated"]:
        own = _counts(result["own_sent"], result["own_failed"], result["own_repeated"])
        text += f" Through the node's own HAProxy: {own}"
    return text


def _counts(sent: int, failed: int, repeated: int, outcomes: str = "") -> str:
    text = f"{sent} request{'s' * (sent != 1)}, {failed or 'none'} failed"
    if repeated:
        text += f", {repeated} repeated"
    return f"{text} ({outcomes})." if outcomes else f"{text}."


def _capacity(result: Mapping[str, Any]) -> str:
    seconds = result["full_capacity_s"]
    return "not until a node is added" if seconds is None else f"{seconds:.0f} s"
