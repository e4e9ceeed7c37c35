"""A part of the clients against a real service; ``python -m tests.clients`` tries all of them."""

from collections.abc import Mapping

import pytest

from tests.clients.catalogue import CLIENTS, Client
from tests.clients.page import PAGE, page
from tests.clients.runs import installed, problems, try_all
from tests.clients.trials import Faults

CORE = [client for client in CLIENTS if client.core]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Client, Faults]:
    with installed(CORE, tmp_path_factory.mktemp("clients")) as administrator:
        return try_all(CORE, administrator)


@pytest.mark.ray
@pytest.mark.timeout(1_800)  # The first one installs the libraries and tries all clients.
@pytest.mark.parametrize("client", CORE, ids=lambda client: f"{client.env}-{client.script}")
def test_a_client_passes_all_checks_but_those_in_the_catalogue(
    client: Client, found: Mapping[Client, Faults]
) -> None:
    assert not problems(client, found[client])


def test_the_page_of_clients_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.clients`"
