"""Ports for a private Ray are free and outside the system's range for outgoing connections."""

import socket
from itertools import cycle

import pytest

from serve_app.deployments import local_ray
from serve_app.deployments.local_ray import FREE_PORTS, free_port

CONNECTIONS = range(32_768, 61_000)
"""Linux's default range of ports for outgoing connections (ip(7))."""


def test_no_port_is_given_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200


def test_a_port_is_not_one_that_an_outgoing_connection_could_be_given() -> None:
    assert not any(free_port() in CONNECTIONS for _ in range(200))


def test_a_port_on_which_somebody_listens_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    monkeypatch.setattr(local_ray, "_ports", cycle([taken, free]))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_port() == free


def test_when_all_are_taken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "port_is_taken", lambda _: True)
    with pytest.raises(OSError, match=f"from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free"):
        free_port()
