"""All faults of the lab."""

from tests.chaos.lab import nodes, processes, services, surroundings
from tests.chaos.lab.fault import GATEWAY, Fault, start_again
from tests.chaos.lab.processes import GATEWAY_PROCESS, SCORER_PROCESS

SCORER = "scorer"

FAULTS = (
    Fault("scorer killed", processes.replica_killed(SCORER, SCORER_PROCESS)),
    Fault("gateway killed", processes.replica_killed(GATEWAY, GATEWAY_PROCESS), kills_gateway=True),
    Fault("gateway out of memory", processes.gateway_out_of_memory, kills_gateway=True),
    Fault("scorer node killed for 20 s", nodes.node_killed(SCORER), start_again, 20),
    Fault(
        *("gateway node killed for 20 s", nodes.node_killed(GATEWAY), start_again, 20),
        kills_gateway=True,
    ),
    Fault("controller killed", processes.controller_killed),
    Fault("head killed for 10 s", nodes.head_killed, start_again, 10),
    Fault("head killed for 90 s", nodes.head_killed, start_again, 90),
    Fault("scorer node without power for 30 s", nodes.node_unpowered(SCORER), start_again, 30),
    Fault(
        *("gateway node without power for 30 s", nodes.node_unpowered(GATEWAY), start_again, 30),
        kills_gateway=True,
    ),
    Fault(
        *("scorer frozen for 30 s", processes.replica_frozen(SCORER, SCORER_PROCESS)),
        *(processes.thaw, 30),
    ),
    Fault(
        *("gateway frozen for 30 s", processes.replica_frozen(GATEWAY, GATEWAY_PROCESS)),
        *(processes.thaw, 30),
    ),
    Fault("scorer node frozen for 30 s", processes.node_frozen, processes.thaw, 30),
    Fault("scorer node cut off for 20 s", nodes.node_cut_off(SCORER), nodes.heal, 20),
    Fault("gateway node cut off for 20 s", nodes.node_cut_off(GATEWAY), nodes.heal, 20),
    Fault("scorer node cut off for good", nodes.node_cut_off(SCORER, for_good=True), start_again),
    Fault(
        *("scorer node with 200 ms delay and 5 % loss for 30 s", nodes.node_far_away(SCORER)),
        *(nodes.repair, 30),
    ),
    Fault(
        *("gateway node with 200 ms delay and 5 % loss for 30 s", nodes.node_far_away(GATEWAY)),
        *(nodes.repair, 30),
    ),
    Fault("scorer node with a notice of 120 s", nodes.node_drained(SCORER, 120), start_again, 120),
    Fault(
        *("gateway node with a notice of 120 s", nodes.node_drained(GATEWAY, 120)),
        *(start_again, 120),
        kills_gateway=True,
    ),
    Fault(
        *("clock of a gateway node 30 s ahead for 30 s", surroundings.clock_ahead),
        *(surroundings.clock_right, 30),
        prepare=surroundings.clock_prepared,
    ),
    Fault(
        *("disk of a gateway node full for 30 s", surroundings.disk_full),
        *(surroundings.disk_emptied, 30),
        prepare=surroundings.disk_prepared,
    ),
    Fault("HAProxy killed", processes.haproxy_killed),
    Fault(
        *("database killed for 5 s", services.database_killed, services.database_started, 5),
        fails_database=True,
    ),
    Fault("database restarted", services.database_restarted, fails_database=True),
    Fault(
        *("database failed over", services.database_cut_off, services.old_primary_retired),
        fails_database=True,
        prepare=services.standby_started,
    ),
    Fault("all replicas replaced", services.all_replaced),
    Fault("scaled down for 20 s", services.scaled_down, services.deployed_again, 20),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
BRIEF = tuple(fault.name for fault in FAULTS if fault.hold_s <= 30 and fault.prepare is None)
"""Names of the faults that need no preparation and are held for at most 30 s."""
