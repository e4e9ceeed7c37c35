"""Faults of the database, and deploys of another configuration."""

import secrets
import signal
import time
from pathlib import Path

import yaml

from cluster.lab import failover, plan
from cluster.lab.lab import Lab
from cluster.lab.service import PRODUCTION
from tests.chaos.lab.fault import Effect, Places, send_signal

DEPLOYED = "deployed.yaml"
"""The config file in the lab's folder, once a fault has changed it."""

NOTICED_S = 5.0
"""Time that a database service needs to notice the loss of its primary."""


def database_killed(lab: Lab, _: Places) -> Effect:
    send_signal(lab, plan.DATABASE, signal.SIGKILL, "postgres")
    return Effect(plan.DATABASE)


def database_started(lab: Lab, _: Effect) -> None:
    lab.start_postgres()


def database_restarted(lab: Lab, _: Places) -> Effect:
    lab.run(plan.DATABASE, lab.postgres.stop())
    lab.start_postgres()
    return Effect(plan.DATABASE)


def standby_started(lab: Lab, _: Places) -> None:
    failover.start_standby(lab)


def database_cut_off(lab: Lab, _: Places) -> Effect:
    """Cut off the primary, which keeps running, and promote the standby after `NOTICED_S`."""
    lab.network.cut(plan.BY_NAME[plan.DATABASE])
    time.sleep(NOTICED_S)
    failover.promote_standby(lab)
    return Effect(plan.DATABASE)


def old_primary_retired(lab: Lab, _: Effect) -> None:
    failover.retire_old_primary(lab)


def all_replaced(lab: Lab, before: Places) -> Effect:
    """Deploy the same configuration with another value under ``runtime_env``."""
    config = yaml.safe_load(_deployed(lab).read_text())
    for application in config["applications"]:
        application["runtime_env"] = {"env_vars": {"RELEASE": secrets.token_hex()}}
    (lab.folder / DEPLOYED).write_text(yaml.safe_dump(config))
    lab.deploy(_deployed(lab))
    return Effect(plan.HEAD, lost=set(before.replicas))


def scaled_down(lab: Lab, _: Places) -> Effect:
    """Deploy the same configuration with one replica of each deployment."""
    config = yaml.safe_load(_deployed(lab).read_text())
    for application in config["applications"]:
        for deployment in application["deployments"]:
            deployment["autoscaling_config"] |= {"min_replicas": 1, "max_replicas": 1}
    path = lab.folder / "scaled-down.yaml"
    path.write_text(yaml.safe_dump(config))
    lab.deploy(path)
    return Effect(plan.HEAD)


def deployed_again(lab: Lab, _: Effect) -> None:
    lab.deploy(_deployed(lab))


def _deployed(lab: Lab) -> Path:
    """Return the config file that is deployed when there is no fault."""
    changed = lab.folder / DEPLOYED
    return changed if changed.exists() else PRODUCTION
