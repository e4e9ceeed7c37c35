"""A bad cable: forwards Ethernet frames between two interfaces with a delay, and loses some.

    python cluster/lab/cable.py INTERFACE INTERFACE DELAY_S LOSS

For kernels without ``netem``. It ends when an interface disappears.
"""

import random
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

SOL_PACKET, PACKET_VNET_HDR = 263, 15
"""Linux constants. With this option, a header before each frame names the work that the kernel has
left to the network device, such as checksums."""

ALL_PROTOCOLS = 3
BYTES_MAX = 2**17
POLL_S = 1.0


def forward(interfaces: Sequence[str], delay_s: float, loss: float) -> None:
    """Forward frames in both directions. Raises: OSError when an interface has disappeared."""
    left, right = map(_opened, interfaces)
    other = {left: right, right: left}
    waiting: deque[tuple[float, socket.socket, bytes]] = deque()
    while True:
        wait_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else POLL_S
        for arrived in select.select([left, right], [], [], wait_s)[0]:
            frame, (_, _, kind, *_) = arrived.recvfrom(BYTES_MAX)
            if kind != socket.PACKET_OUTGOING and random.random() >= loss:  # noqa: S311 - no secret
                waiting.append((time.monotonic() + delay_s, other[arrived], frame))
        while waiting and waiting[0][0] <= time.monotonic():
            _, to, frame = waiting.popleft()
            to.send(frame)


def _opened(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL_PROTOCOLS))
    opened.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    opened.bind((interface, ALL_PROTOCOLS))
    return opened


if __name__ == "__main__":
    with suppress(OSError):
        forward(sys.argv[1:3], float(sys.argv[3]), float(sys.argv[4]))
