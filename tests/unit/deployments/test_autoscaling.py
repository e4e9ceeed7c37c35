"""The policy with Ray's own context objects; a deployment that fails keeps its replicas."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from serve_app.deployments.autoscaling import STALE_S, BacklogPolicy
from serve_app.scaling.backlogs import PREFIX
from serve_app.scaling.policy import Goals

ROOT = Path(__file__).parents[3]
APPLICATION, SCORER = "tiny", "scorer"
NOW = 1_700_000_000.0

Stats = dict[str, float]


def a_context(
    name: str,
    stats: list[Stats],
    *,
    reported_at: float = NOW,
    target: int = 1,
    **more: Any,
) -> AutoscalingContext:
    """Return the context of a deployment with ``stats`` as its replicas' last reports."""
    deployment = DeploymentID(name, APPLICATION)
    replicas = [ReplicaID(f"{name}-{number}", deployment) for number in range(len(stats))]
    metrics: dict[str, dict[ReplicaID, list[TimeStampedValue]]] = {}
    for replica, values in zip(replicas, stats, strict=True):
        for stat, value in values.items():
            point = TimeStampedValue(reported_at, value)
            metrics.setdefault(stat, {})[replica] = [point]
    fields: dict[str, Any] = {
        "deployment_id": deployment,
        "deployment_name": name,
        "app_name": APPLICATION,
        "current_num_replicas": len(replicas),
        "target_num_replicas": target,
        "running_replicas": replicas,
        "total_num_requests": 0,
        "total_queued_requests": 0,
        "aggregated_metrics": {},
        "raw_metrics": metrics,
        "capacity_adjusted_min_replicas": 0,
        "capacity_adjusted_max_replicas": 8,
        "policy_state": {},
        "last_scale_up_time": None,
        "last_scale_down_time": None,
        "current_time": NOW,
        "config": AutoscalingConfig(target_ongoing_requests=10),
    }
    return AutoscalingContext(**fields | more)


class Controller:
    """Calls the policy as Ray's controller does."""

    def __init__(self, policy: BacklogPolicy | None = None) -> None:
        self.policy = policy or BacklogPolicy()
        self.target = 1
        self.state: dict[str, Any] = {}
        self.now = NOW

    def tick(self, for_s: float = 0.1, **more: Any) -> int:
        """Let ``for_s`` pass with these metrics, and return the target."""
        for _ in range(round(for_s / 0.1)):
            self.now += 0.1
            context = self.context(**more)
            targets, states = self.policy({context.deployment_id: context})
            self.target = targets.get(context.deployment_id, self.target)
            self.state = states.get(context.deployment_id, {})
        return self.target

    def context(
        self, scorers: list[Stats] | None = None, age_s: float = 1, portions: float = 0
    ) -> AutoscalingContext:
        return a_context(
            SCORER,
            [a_scorer()] if scorers is None else scorers,
            reported_at=self.now - age_s,
            current_time=self.now,
            target=self.target,
            total_num_requests=portions,
            policy_state=self.state,
        )


def a_scorer(
    inflight: float = 0, speed: float = 1_000, busy: float = 0, **backlogs: float
) -> Stats:
    """Return the report of a replica, which has heard the ``backlogs`` of gateways."""
    heard = {f"{PREFIX}{gateway}": tokens for gateway, tokens in backlogs.items()}
    return {"inflight_tokens": inflight, "tokens_per_s": speed, "busy_ratio": busy} | heard


def test_scorers_are_scaled_by_queued_and_inflight_tokens() -> None:
    assert Controller().tick(2, scorers=[a_scorer(1_000, g1=1_000, g2=2_000)]) == 4


def test_a_backlog_that_several_replicas_heard_counts_once() -> None:
    scorers = [a_scorer(g1=3_000), a_scorer(g1=2_500, g2=1_000)]

    assert Controller().tick(2, scorers=scorers) == 4


def test_faster_gpus_need_fewer_replicas() -> None:
    scorers = [a_scorer(speed=3_000, g1=4_000), a_scorer(speed=1_000)]

    assert Controller().tick(2, scorers=scorers) == 2


def test_a_first_replica_stays_for_the_request_that_started_it() -> None:
    """The request is too small to wait at the gateway; Ray holds it on the way to a replica."""
    controller = Controller()
    assert controller.tick(700) == 0

    assert controller.tick(10, scorers=[], portions=1) == 1
    assert controller.tick(1, portions=0) == 1


def test_from_zero_one_replica_starts_and_hears_how_many_are_needed() -> None:
    controller = Controller()
    controller.tick(2)
    controller.target = 0

    assert controller.tick(2, scorers=[], portions=40) == 1
    assert controller.tick(2, scorers=[a_scorer(g1=5_000)], portions=40) == 5


@pytest.mark.parametrize(
    "missing",
    [
        {"scorers": [a_scorer(g1=9_000)], "age_s": STALE_S + 1},
        {"scorers": [{}]},
    ],
    ids=["the report is old", "no scorer has ever reported"],
)
def test_without_metrics_the_number_of_scorers_stays(missing: dict[str, Any]) -> None:
    controller = Controller()
    controller.target = 3

    assert controller.tick(5, **missing) == 3


def test_clock_differences_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    Controller().tick(5, scorers=[a_scorer(g1=9_000)], age_s=STALE_S + 1)

    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 1
    assert "synchronize the clocks" in messages[0]


class Listening(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Yield the messages in Serve's log."""
    listening = Listening()
    logging.getLogger("ray.serve").addHandler(listening)
    yield listening.messages
    logging.getLogger("ray.serve").removeHandler(listening)


def test_after_an_error_the_replicas_stay_and_it_is_logged_once(logged: list[str]) -> None:
    controller = Controller()
    controller.target = 3
    broken: list[Any] = [{"inflight_tokens": "many", "tokens_per_s": 1.0, "busy_ratio": 0.0}]

    assert controller.tick(3, scorers=broken) == 3
    assert len(logged) == 1
    assert APPLICATION in logged[0]


def test_a_scheduled_floor_starts_replicas_up_to_the_maximum() -> None:
    always = {"since": "00:00", "until": "00:00", "replicas": 6}

    assert Controller(BacklogPolicy([always])).tick() == 6
    assert Controller(BacklogPolicy([always | {"replicas": 60}])).tick() == 8


def test_replicas_that_find_no_room_are_logged_once_each_time(logged: list[str]) -> None:
    controller = Controller()
    busy = {"scorers": [a_scorer(4_000)]}

    controller.tick(30, **busy)
    assert (controller.target, logged) == (4, [])
    controller.tick(120, **busy)
    assert len(logged) == 1
    assert "tiny has 1 of 4 replicas" in logged[0]

    controller.tick(10, scorers=[a_scorer(1_000)] * 4)
    controller.tick(120, **busy)
    assert len(logged) == 2


@pytest.mark.parametrize(
    "wrong", [{"delay_s": -1}, {"delay": 2}, {"busy_max": "high"}, {"floors": [{"at": "08:45"}]}]
)
def test_a_policy_with_wrong_arguments_uses_its_defaults(
    wrong: dict[str, Any], logged: list[str]
) -> None:
    """An error in the constructor would also stop Ray's controller."""
    controller = Controller(BacklogPolicy(**wrong))

    assert controller.tick(2, scorers=[a_scorer(g1=4_000)]) == 4
    assert ["policy_kwargs" in message for message in logged] == [True]


def test_the_policy_arguments_in_the_config_files_are_valid() -> None:
    config = yaml.safe_load((ROOT / "cluster/production.yaml").read_text())
    policy = config["applications"][0]["autoscaling_policy"]

    assert policy["policy_function"] == f"{BacklogPolicy.__module__}:{BacklogPolicy.__name__}"
    Goals(**policy["policy_kwargs"])  # Must not raise.
    (deployment,) = config["applications"][0]["deployments"]
    scaling = deployment["autoscaling_config"]
    assert (scaling["upscale_delay_s"], scaling["downscale_delay_s"]) == (0, 0)
