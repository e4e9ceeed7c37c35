"""Inject faults into a running lab under steady load, from the network of the client host.

python -m tests.chaos.lab.run FOLDER REQUESTS_PER_S PACE FAULT ...

Prints progress to its error output, and the results as JSON. After SIGTERM, it leaves out the
current fault and prints the results of the previous ones.
"""

import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.lab import plan
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError, wait_for
from serve_app.domain.clock import SystemClock
from serve_app.domain.units import Credits
from serve_app.ledger.db.engines import reading
from testkit.office import DATABASE_TIMEOUT_S, Office
from tests.chaos.faults import Happened
from tests.chaos.harness import read_log
from tests.chaos.lab.fault import Effect, Fault, Places
from tests.chaos.lab.faults import BY_NAME
from tests.chaos.lab.load import Load, Target
from tests.chaos.lab.report import SERVED, Cost, Window, cost, hit
from tests.chaos.verifier import EXPIRY_GRACE_MS, Books, verify

CLOCK = SystemClock()
RECOVERY_S_MAX = 150.0
POLL_S = 0.5
PLENTY = Credits(10**10)
EXPIRY_S_MAX = 90.0
SLOWEST = 5


@dataclass(frozen=True, slots=True)
class Pace:
    """The times around a fault."""

    quiet_s: float
    """Time under load before it."""

    effect_s: float
    """Shortest time in which requests count as hit by the fault."""


PACES = {"steady": Pace(12, 20), "quick": Pace(3, 8)}


class Ended(Exception):
    """A signal ended the run."""


class Trial:
    """One lab under load."""

    def __init__(self, lab: Lab, requests_per_s: float, pace: Pace) -> None:
        self._lab = lab
        self._pace = pace
        self._windows: list[Window] = []
        self._happened: list[Happened] = []
        self._replicas = len(lab.service_state()["replicas"])
        office = Office(plan.database_url())
        tenant = office.tenant("chaos", PLENTY)
        self._load = Load(
            [Target(host.name, host.url, office.key(tenant)) for host in lab.proxies()],
            requests_per_s,
        )
        self._load.start()

    def inject(self, fault: Fault) -> Window:
        """Inject and undo a fault, and wait until all replicas run again."""
        if fault.prepare is not None:
            time.sleep(self._pace.quiet_s)  # So that it hits no request of the previous fault.
            fault.prepare(self._lab, Places.of(self._lab.service_state()))
            self._recovery_s(Effect(plan.HEAD), time.monotonic(), RECOVERY_S_MAX)
        began_at = CLOCK.moment()
        time.sleep(self._pace.quiet_s)
        before = Places.of(self._lab.service_state())
        fault_at, fault_s = CLOCK.moment(), time.monotonic()
        effect = fault.inject(self._lab, before)
        full_capacity_s = self._held(fault, effect, fault_s) if fault.hold_s else None
        self._happened.append(Happened(fault, fault_at, CLOCK.moment(), int(fault.kills_gateway)))
        complete_s = self._recovery_s(effect, fault_s, RECOVERY_S_MAX)
        full_capacity_s = complete_s if full_capacity_s is None else full_capacity_s
        time.sleep(max(0.0, fault_s + self._pace.effect_s - time.monotonic()))
        shared = Places.of(self._lab.service_state()).shared()
        window = Window(
            *(fault.name, effect.host, effect.host_is_away, began_at, fault_at, CLOCK.moment()),
            *(None if full_capacity_s is None else round(full_capacity_s, 1), shared),
        )
        self._windows.append(window)
        if fault.undo is not None and not fault.hold_s:
            fault.undo(self._lab, effect)
            self._recovery_s(effect, time.monotonic(), RECOVERY_S_MAX)
        return window

    def _held(self, fault: Fault, effect: Effect, since_s: float) -> float | None:
        """Hold and undo the fault; return the time until lost replicas were replaced, if so."""
        full_capacity_s = self._recovery_s(effect, since_s, fault.hold_s) if effect.lost else None
        time.sleep(max(0.0, since_s + fault.hold_s - time.monotonic()))
        if fault.undo is not None:
            fault.undo(self._lab, effect)
        return full_capacity_s

    def end(self) -> None:
        """Stop the load, and wait until no reservation is pending."""
        self._load.stop()
        give_up_s = time.monotonic() + EXPIRY_S_MAX
        while self._pending() and time.monotonic() < give_up_s:
            time.sleep(1)

    def slowest(self) -> Iterator[str]:
        """Describe the slowest requests that were repeated, for each fault."""
        for window in self._windows:
            repeated = [
                each for each in hit(window, self._load.sent) if each.first_outcome != SERVED
            ]
            for each in sorted(repeated, key=lambda each: each.total_s)[-SLOWEST:]:
                since_s = (each.exchange.sent_at - window.fault_at) / 1_000
                yield (
                    f"{window.fault}: sent through {each.host} after {since_s:.1f} s, "
                    f"{each.first_outcome} after {each.first_s:.1f} s, "
                    f"{each.exchange.outcome} after {each.total_s:.1f} s\n"
                )

    def costs(self) -> list[Cost]:
        return [cost(window, self._load.sent) for window in self._windows]

    def ledger(self) -> dict[str, Any]:
        """Compare the answers with the ledger."""
        books = self._books()
        exchanges = [each.exchange for each in self._load.sent]
        log = read_log(*(self._lab.folder / "hosts").glob("*/tmp/ray"))
        verdict = verify(exchanges, self._happened, books, log, CLOCK.moment())
        return {
            "requests": len(exchanges),
            "answered_200": sum(each.said is not None for each in exchanges),
            "charges": len(books.charges),
            "charged_without_200": dict(verdict.charged_without_200),
            "violations": verdict.violations,
        }

    def _recovery_s(self, effect: Effect, since_s: float, wait_s: float) -> float | None:
        """Wait until all replicas run; return the time since the fault, or ``None``."""
        try:
            wait_for(lambda: self._is_complete(effect), wait_s, "the recovery")
        except LabError:
            return None
        return time.monotonic() - since_s

    def _is_complete(self, effect: Effect) -> bool:
        time.sleep(POLL_S)
        try:
            state = self._lab.service_state()
        except LabError:  # For example, the head is away.
            return False
        if effect.host_is_away and not effect.lost and not self._load.answers(effect.host):
            return False
        running = {each["id"] for each in state["replicas"] if each["state"] == "RUNNING"}
        return (
            state["application"] == "RUNNING"
            and len(running) >= self._replicas
            and not running & effect.lost
        )

    def _pending(self) -> bool:
        now = CLOCK.moment()
        return any(
            row["state"] == "pending" and row["expires_at"] + EXPIRY_GRACE_MS >= now
            for row in self._books().reservations
        )

    def _books(self) -> Books:
        with reading(plan.database_url(), DATABASE_TIMEOUT_S) as connection:
            return Books.read(connection)


def main(arguments: Sequence[str]) -> None:
    folder, requests_per_s, pace, *names = arguments
    lab = Lab.load(Path(folder))
    lab.in_user_namespace = False  # This process is already in the user namespace, if there is one.
    trial = Trial(lab, float(requests_per_s), PACES[pace])
    problem = ""
    signal.signal(signal.SIGTERM, _end)
    for name in names:
        try:
            window = trial.inject(BY_NAME[name])
        except (LabError, Ended) as error:
            problem = f"{name}: {error}"
            break
        sys.stderr.write(
            f"{name}: full capacity after {window.full_capacity_s} s, shared: {window.shared}\n"
        )
    trial.end()
    sys.stderr.writelines(trial.slowest())
    costs = [asdict(each) | {"p99_added_s": each.p99_added_s} for each in trial.costs()]
    sys.stdout.write(json.dumps({"problem": problem, "faults": costs, "ledger": trial.ledger()}))


def _end(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Ended("ended by SIGTERM")


if __name__ == "__main__":
    main(sys.argv[1:])
