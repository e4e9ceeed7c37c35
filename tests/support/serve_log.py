"""Log files of a Serve replica, configured by Ray's own code, without a running Ray."""

import builtins
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import MemoryHandler
from pathlib import Path

from ray.serve._private import logging_utils
from ray.serve._private.common import ServeComponentType
from ray.serve.schema import LoggingConfig

from serve_app.deployments.logs import join_serve_log


@contextmanager
def serve_log(folder: Path) -> Iterator[None]:
    """Log like a replica: JSON lines to ``folder``.

    Stdout and stderr go there too, as with the throughput options in ``cluster/ray.env``.
    """
    ours, serves = logging.getLogger("serve_app"), logging.getLogger("ray.serve")
    before = [(each, each.handlers[:], each.level, each.propagate) for each in (ours, serves)]
    print_, stdout, stderr = builtins.print, sys.stdout, sys.stderr
    to_stderr, raise_exceptions = logging_utils.RAY_SERVE_LOG_TO_STDERR, logging.raiseExceptions
    try:
        logging_utils.RAY_SERVE_LOG_TO_STDERR = False
        logging_utils.configure_component_logger(
            component_name="gateway",
            component_id="test",
            component_type=ServeComponentType.REPLICA,
            logging_config=LoggingConfig(encoding="JSON", logs_dir=str(folder)),
            max_bytes=2**20,
            backup_count=1,
        )
        join_serve_log()
        yield
    finally:
        builtins.print, sys.stdout, sys.stderr = print_, stdout, stderr
        logging_utils.RAY_SERVE_LOG_TO_STDERR = to_stderr
        logging.raiseExceptions = raise_exceptions
        for handler in serves.handlers:
            assert isinstance(handler, MemoryHandler)
            file = handler.target
            handler.close()
            if file is not None:
                file.close()
        for logger, handlers, level, propagate in before:
            logger.handlers = handlers
            logger.setLevel(level)
            logger.propagate = propagate
