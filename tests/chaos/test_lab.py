"""Faults of a cluster cost no request and no wrong charge."""

import pytest
from rich.console import Console

from cluster.lab.namespaces import NoNamespaces, needs_user_namespace
from tests.chaos.lab.__main__ import run

FAULTS = (
    "scorer killed",
    "gateway killed",
    "controller killed",
    "head killed for 10 s",
    "gateway node killed for 20 s",
    "gateway frozen for 30 s",
    "scorer node cut off for 20 s",
    "database failed over",
)


@pytest.mark.ray
@pytest.mark.timeout(720)
def test_no_fault_fails_a_request_or_a_charge() -> None:
    try:
        needs_user_namespace()
    except NoNamespaces as problem:
        pytest.skip(str(problem))

    result = run(FAULTS, requests_per_s=6, console=Console(quiet=True), keep_logs=None)

    assert result["problem"] == ""
    assert result["ledger"]["violations"] == []
    assert {each["fault"]: each["failed"] for each in result["faults"]} == dict.fromkeys(FAULTS, 0)
    for each in result["faults"]:
        assert each["full_capacity_s"] is not None, f"{each['fault']}: not all replicas came back"
        assert each["shared"] == [], f"{each['fault']}: two replicas on one node"
