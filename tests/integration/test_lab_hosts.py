"""The lab's hosts, without Ray."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cluster.lab import failover, namespaces, plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError, NoNamespaces, wait_for

pytestmark = pytest.mark.slow

CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=float(sys.argv[3]))
"""


@pytest.fixture(params=[False, True], ids=["root", "user namespace"])
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """Three hosts. Root tries both ways of creating them, other users the second one only."""
    try:
        needs_user_namespace = namespaces.needs_user_namespace()
    except NoNamespaces as problem:
        pytest.skip(str(problem))
    if needs_user_namespace and not request.param:
        pytest.skip("This user is not root.")
    outer = namespaces.create_outer(tmp_path, in_user_namespace=request.param)
    lab = Lab(tmp_path, request.param, "token", outer)
    try:
        lab.network.create()
        for name in (plan.DATABASE, plan.REDIS, plan.CLIENT):
            lab.create_host(plan.BY_NAME[name])
        yield lab
    finally:
        lab.end()


def connect(lab: Lab, address: str, port: int, timeout_s: float = 30.0) -> None:
    """Raises: LabError when the client host cannot connect.

    The kernel repeats a lost packet after a second, and then less and less often.
    """
    arguments = [address, str(port), str(timeout_s)]
    lab.run(plan.CLIENT, [sys.executable, "-I", "-S", "-c", CONNECT, *arguments])


def test_the_databases_answer_other_hosts_until_these_are_cut_off(lab: Lab) -> None:
    lab.start_postgres()
    lab.start_redis()
    database = plan.BY_NAME[plan.DATABASE]

    connect(lab, database.address, plan.POSTGRES_PORT)
    connect(lab, plan.BY_NAME[plan.REDIS].address, plan.REDIS_PORT)

    lab.network.cut(database)
    with pytest.raises(LabError, match="timed out"):
        connect(lab, database.address, plan.POSTGRES_PORT, timeout_s=1)

    lab.network.heal(database)
    connect(lab, database.address, plan.POSTGRES_PORT)


def test_a_host_has_its_own_name_processes_and_temporary_files(lab: Lab, tmp_path: Path) -> None:
    said = lab.run(plan.CLIENT, ["bash", "-c", "hostname; echo $PPID; touch /tmp/lab-mark; id -u"])

    assert said.split() == ["client", "0", "0"]
    assert (tmp_path / "hosts" / "client" / "tmp" / "lab-mark").exists()
    assert not Path("/tmp/lab-mark").exists()  # noqa: S108 - the name is not used elsewhere


def test_a_host_that_ends_takes_its_processes_along_and_comes_back(lab: Lab) -> None:
    lab.start_redis()
    redis, client = lab.hosts[plan.REDIS], lab.hosts[plan.CLIENT]
    processes = redis.descendants()
    assert any("server" in process.name() for process in processes)

    redis.end()

    assert not any(process.is_running() for process in processes)
    assert client.process() is not None
    lab.create_host(plan.BY_NAME[plan.REDIS])
    lab.start_redis()
    connect(lab, plan.BY_NAME[plan.REDIS].address, plan.REDIS_PORT)


def test_a_host_comes_back_after_a_power_failure(lab: Lab) -> None:
    lab.start_redis()
    redis = plan.BY_NAME[plan.REDIS]
    stay = CONNECT + "import time; time.sleep(60)"
    command = [sys.executable, "-I", "-S", "-c", stay, redis.address, str(plan.REDIS_PORT), "30"]
    connected = lab.spawn(plan.CLIENT, command, subprocess.DEVNULL)
    wait_for(lambda: psutil.Process(connected.pid).children(), 60, "the start of the command")

    lab.network.cut(redis)
    lab.hosts[plan.REDIS].end()
    lab.create_host(redis)
    lab.start_redis()

    try:
        connect(lab, redis.address, plan.REDIS_PORT)
    finally:
        lab.end()
        connected.wait(60)


def test_the_end_of_the_outer_namespaces_ends_every_process(lab: Lab) -> None:
    started = lab.spawn(plan.CLIENT, ["sleep", "1000"], output=subprocess.DEVNULL)
    wait_for(lambda: psutil.Process(started.pid).children(), 60, "the start of the command")
    inside = psutil.Process(started.pid).children()

    lab.outer.end()

    started.wait(60)
    assert all(host.process() is None for host in lab.hosts.values())
    assert not any(process.is_running() for process in inside)


def test_a_bad_cable_delays_and_loses_what_it_carries(lab: Lab) -> None:
    lab.start_redis()
    redis = plan.BY_NAME[plan.REDIS]

    lab.network.spoil(redis, delay_s=0.2, loss=0)
    with suppress(LabError):  # Its first packet may come before the cable is ready.
        connect(lab, redis.address, plan.REDIS_PORT)
    began_s = time.monotonic()
    connect(lab, redis.address, plan.REDIS_PORT)
    assert time.monotonic() - began_s >= 0.4
    lab.network.repair(redis)

    lab.network.spoil(redis, delay_s=0, loss=1)
    with pytest.raises(LabError, match="timed out"):
        connect(lab, redis.address, plan.REDIS_PORT, timeout_s=1)
    lab.network.repair(redis)
    connect(lab, redis.address, plan.REDIS_PORT)


def test_a_standby_takes_over_the_address_and_has_every_committed_row(lab: Lab) -> None:
    database, postgres = plan.BY_NAME[plan.DATABASE], lab.postgres
    lab.start_postgres()
    failover.start_standby(lab)
    lab.run(plan.DATABASE, postgres.execute("CREATE TABLE t (n int)", "INSERT INTO t VALUES (1)"))
    old = lab.hosts[plan.DATABASE]

    lab.network.cut(database)
    failover.promote_standby(lab)

    assert old.process() is not None
    connect(lab, database.address, plan.POSTGRES_PORT)
    failover.retire_old_primary(lab)
    assert old.process() is None
    connect(lab, database.address, plan.POSTGRES_PORT)
    statements = ("INSERT INTO t VALUES (2)", "SELECT * FROM t")
    assert lab.run(plan.DATABASE, postgres.execute(*statements)).split() == ["1", "2"]
