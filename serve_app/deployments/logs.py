"""Where the house's log lines go: into the replica's own log file, in Serve's format."""

import logging


def join_serve_log() -> None:
    """Send what any module of ours logs to the file that Serve opened for this replica."""
    ours, serves = logging.getLogger("serve_app"), logging.getLogger("ray.serve")
    ours.handlers = serves.handlers
    ours.setLevel(serves.level)
    ours.propagate = False
