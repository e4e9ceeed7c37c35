"""Move the database to a standby, as a database service does when it loses the primary.

Replication is synchronous, so the standby has every charge whose COMMIT was answered. It takes over
the address of the old primary, so `RERANK_DATABASE_URL` stays as it is. The standby resets
connections that clients had to the old primary, as soon as they send on them.
"""

import shutil

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import wait_for

SYNCHRONOUS = "ALTER SYSTEM SET synchronous_standby_names = '*'"
RELOAD = "SELECT pg_reload_conf()"
STATE = "SELECT sync_state FROM pg_stat_replication"
FOLLOW_S_MAX = 60.0


def start_standby(lab: Lab) -> None:
    """Create a synchronous standby of the database. Raises: LabError."""
    lab.create_host(plan.STANDBY_HOST)
    lab.save()
    lab.run(plan.STANDBY, lab.postgres.follow(plan.BY_NAME[plan.DATABASE]))
    lab.run(plan.DATABASE, lab.postgres.execute(SYNCHRONOUS, RELOAD))
    wait_for(
        lambda: lab.run(plan.DATABASE, lab.postgres.execute(STATE)).strip() == "sync",
        *(FOLLOW_S_MAX, "synchronous replication"),
    )


def promote_standby(lab: Lab) -> None:
    """Make the standby the primary. The old primary must be cut off. Raises: LabError."""
    lab.run(plan.STANDBY, lab.postgres.promote())
    lab.network.take_over(lab.hosts[plan.STANDBY], plan.BY_NAME[plan.DATABASE])


def retire_old_primary(lab: Lab) -> None:
    """End the old primary, and give its place in the lab to the promoted standby."""
    lab.hosts[plan.DATABASE].end()
    lab.network.rename(plan.STANDBY_HOST, plan.BY_NAME[plan.DATABASE])
    lab.hosts[plan.DATABASE] = lab.hosts.pop(plan.STANDBY)
    lab.save()
    folder = lab.folder / "hosts"
    shutil.rmtree(folder / plan.DATABASE)
    (folder / plan.STANDBY).rename(folder / plan.DATABASE)
