"""Ports for a private Ray are free and outside the system's range for outgoing connections."""

import socket
from itertools import cycle

import pytest

from serve_app.deployments import local_ray
from serve_app.deployments.local_ray import FREE_PORTS, free_port

CONNECTIONS = range(32_768, 61_000)
"""Linux's default range of ports for outgoing connections (ip(7))."""


def test_no_port_is_returned_twice() -> None:
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200


def test_ports_are_outside_the_ephemeral_range() -> None:
    assert not any(free_port() in CONNECTIONS for _ in range(200))


def test_a_port_in_use_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    taken, free = free_port(), free_port()
    monkeypatch.setattr(local_ray, "_ports", cycle([taken, free]))
    with socket.create_server(("127.0.0.1", taken)):
        assert free_port() == free


def test_an_error_is_raised_if_all_ports_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_ray, "port_is_taken", lambda _: True)
    with pytest.raises(OSError, match=f"from {FREE_PORTS.start} to {FREE_PORTS.stop - 1} is free"):
        free_port()
