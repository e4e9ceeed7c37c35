"""Write the log lines of ``serve_app`` and of the exporter of traces to the replica's log file."""

import logging


def join_serve_log() -> None:
    """Send the log lines to Serve's handlers, which stop reporting their own errors.

    Serve redirects stderr into the same handlers, so a full disk would end in a `RecursionError`.
    """
    serves = logging.getLogger("ray.serve")
    for name in ("serve_app", "opentelemetry"):
        ours = logging.getLogger(name)
        ours.handlers = serves.handlers
        ours.setLevel(serves.level)
        ours.propagate = False
    logging.raiseExceptions = False
