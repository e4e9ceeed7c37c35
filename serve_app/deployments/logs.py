"""Route the log lines of this package into the replica's log file, in Serve's format."""

import logging


def join_serve_log() -> None:
    """Send the log lines of ``serve_app`` and of the exporter of traces to the replica's file.

    Handlers of this process stop reporting their own errors. They would report them to stderr,
    which Serve redirects into the same handlers: on a full disk that would end in a
    `RecursionError`.
    """
    serves = logging.getLogger("ray.serve")
    for name in ("serve_app", "opentelemetry"):
        ours = logging.getLogger(name)
        ours.handlers = serves.handlers
        ours.setLevel(serves.level)
        ours.propagate = False
    logging.raiseExceptions = False
