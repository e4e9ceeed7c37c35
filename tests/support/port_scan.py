"""Print the TCP ports on which hosts accept connections: ``port_scan.py ADDRESS ...``, as JSON."""

import json
import socket
import sys

TIMEOUT_S = 1.0
"""A port that does not answer within this time counts as closed."""


def open_ports(address: str) -> list[int]:
    """Try to connect to every port."""
    return [port for port in range(1, 2**16) if is_open(address, port)]


def is_open(address: str, port: int) -> bool:
    """Return whether a program accepts connections on the port."""
    with socket.socket() as connection:
        connection.settimeout(TIMEOUT_S)
        return connection.connect_ex((address, port)) == 0


if __name__ == "__main__":
    sys.stdout.write(json.dumps({address: open_ports(address) for address in sys.argv[1:]}))
