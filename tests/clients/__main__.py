"""Try all clients and write ``docs/clients.md``; with ``lock``, update their versions first."""

import sys
import tempfile
import time
from pathlib import Path

from tests.clients.catalogue import CLIENTS
from tests.clients.costs import check_costs
from tests.clients.environments import lock
from tests.clients.page import PAGE, page
from tests.clients.runs import installed, problems, try_all


def main(arguments: list[str]) -> int:
    if arguments == ["lock"]:
        lock()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        installed(CLIENTS, Path(folder)) as administrator,
    ):
        found = try_all(CLIENTS, administrator)
        check_costs(administrator)
    wrong = {client: problems(client, faults) for client, faults in found.items()}
    for client, texts in wrong.items():
        for text in texts:
            sys.stdout.write(f"{client.env}, {client.name}: {text}\n")
    sys.stdout.write(f"{len(CLIENTS)} clients in {time.monotonic() - started:.0f} s\n")
    if any(wrong.values()):
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
