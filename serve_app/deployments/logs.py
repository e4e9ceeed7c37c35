"""Routes the log lines of this package into the replica's log file, in Serve's format."""

import logging
from pathlib import Path

from serve_app.private_files import close_to_others


def join_serve_log() -> None:
    """Send the log lines of ``serve_app`` to the file that Serve opened for this replica.

    Handlers of this process stop reporting their own errors. They would report them to stderr,
    which Serve redirects into the same handlers: on a full disk that recursion ends in a
    `RecursionError` in whatever code wrote the line, Ray's own included.

    Ray's session folder, which holds the logs of this node, is closed to other users.
    """
    ours, serves = logging.getLogger("serve_app"), logging.getLogger("ray.serve")
    _close_session_to_others(serves.handlers)
    ours.handlers = serves.handlers
    ours.setLevel(serves.level)
    ours.propagate = False
    logging.raiseExceptions = False


def _close_session_to_others(handlers: list[logging.Handler]) -> None:
    """Ray opens its session folder to everybody, whatever the umask is."""
    for handler in handlers:
        file_handler = getattr(handler, "target", handler)  # Behind a buffer, if there is one.
        log_file = Path(getattr(file_handler, "baseFilename", ""))
        for folder in log_file.parents:
            if folder.name.startswith("session_"):
                close_to_others(folder)
