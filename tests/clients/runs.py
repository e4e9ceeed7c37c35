"""Try several clients against one service."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tests.clients.accounts import Administrator, running
from tests.clients.catalogue import CLIENTS, Client
from tests.clients.environments import create, sources_of
from tests.clients.trials import BODY_BYTES_MAX, DOCUMENTS_MAX, Faults, faults

AT_ONCE = 3


@contextmanager
def installed(clients: Iterable[Client], folder: Path) -> Iterator[Administrator]:
    """Install the libraries, and run a service that keeps its files in ``folder``."""
    for env in dict.fromkeys(client.env for client in clients):
        create(env)
    with running(
        folder, documents_per_request_max=DOCUMENTS_MAX, body_bytes_max=BODY_BYTES_MAX
    ) as service:
        yield Administrator(service)


def try_all(clients: Sequence[Client], administrator: Administrator) -> Mapping[Client, Faults]:
    """Return the faults of each client."""

    def found(client: Client) -> Faults:
        return faults(client, administrator.accounts(f"{CLIENTS.index(client)}"))

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return dict(zip(clients, threads.map(found, clients), strict=True))


def problems(client: Client, found: Faults) -> list[str]:
    """Return how the faults differ from those in the catalogue."""
    return [
        *(f"{check}: {fault}" for check, fault in found.items() if check not in client.fails),
        *(f"{check}: now passes" for check in client.fails if check not in found),
        *(
            f"{line.file} has no line {line.code!r}"
            for line in dict.fromkeys(client.fails.values())
            if line.code not in _lines(sources_of(client.env) / line.file)
        ),
    ]


def _lines(file: Path) -> set[str]:
    return {line.strip() for line in file.read_text(encoding="utf-8").splitlines()}
