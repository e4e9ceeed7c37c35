import subprocess
from pathlib import Path

import pytest

from cluster.lab import service
from cluster.lab.namespaces import LabError

ANSWER = {
    "applications": {
        "rerank": {
            "status": "RUNNING",
            "message": "",
            "deployments": {
                "gateway": {
                    "replicas": [
                        {"replica_id": "a", "state": "RUNNING", "node_ip": "198.18.0.21"},
                        {"replica_id": "b", "state": "STARTING"},
                    ]
                }
            },
        }
    },
    "proxies": {"node": {"node_ip": "198.18.0.10", "status": "HEALTHY"}},
}


def test_the_state_lists_replicas_and_proxies_by_address() -> None:
    state = service.state_of(ANSWER)

    assert state["application"] == "RUNNING"
    assert [(each["id"], each["address"]) for each in state["replicas"]] == [
        ("a", "198.18.0.21"),
        ("b", None),
    ]
    assert state["proxies"] == {"198.18.0.10": "HEALTHY"}


def test_the_state_before_the_deployment_has_no_replicas() -> None:
    state = service.state_of({"applications": {}})

    assert state["application"] == "NOT_STARTED"
    assert (state["replicas"], state["proxies"]) == ([], {})


@pytest.mark.parametrize(
    ("output", "result"),
    [
        ("", (0, None)),
        ("503\n", (503, None)),
        ('200\n{"ready": true}', (200, {"ready": True})),
        ("500\n<html>", (500, None)),
    ],
)
def test_what_was_fetched_is_a_status_and_json(output: str, result: tuple[int, object]) -> None:
    assert service.fetched(output) == result


def test_no_answer_is_the_status_0() -> None:
    done = subprocess.run(
        service.fetch("http://127.0.0.1:1/"), capture_output=True, text=True, check=True
    )

    assert service.fetched(done.stdout) == (0, None)


def test_the_key_is_found_in_the_output_of_the_command() -> None:
    assert service.key_in("Created tenant 'lab'.\nrk_abc_def\n") == "rk_abc_def"
    with pytest.raises(LabError, match="printed no key"):
        service.key_in("nothing")


def test_hosts_get_no_variables_of_another_ray_or_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere")
    monkeypatch.setenv("RERANK_VAR_DIR", "elsewhere")

    env = service.environment(tmp_path, "token")

    assert "RAY_ADDRESS" not in env
    assert "RERANK_VAR_DIR" not in env
    assert env["RAY_AUTH_TOKEN"] == "token"
    assert env["RERANK_DATABASE_URL"].startswith("postgresql+psycopg://rerank@198.18.0.41")


def test_only_the_head_knows_redis() -> None:
    assert service.head_environment({"A": "b"}) == {
        "A": "b",
        "RAY_REDIS_ADDRESS": "198.18.0.42:6379",
    }


def test_programs_get_the_variables_of_ray_env() -> None:
    done = subprocess.run(
        service.with_ray_env(["printenv", "RAY_AUTH_MODE"]),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "token\n"
