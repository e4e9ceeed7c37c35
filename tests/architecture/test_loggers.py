"""All log calls use a logger that never raises."""

import ast

from tests.support.source import sources

EXCUSED = {
    "serve_app/telemetry/logs.py",  # It wraps the standard loggers.
    "serve_app/deployments/logs.py",  # It moves handlers and logs nothing.
    "serve_app/deployments/local_ray.py",  # It sets levels and logs nothing.
}
FORBIDDEN = {"getLogger", "debug", "info", "warning", "error", "exception", "critical", "log"}


def test_modules_use_loggers_that_cannot_raise() -> None:
    using = {
        name
        for name, tree in sources("serve_app")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "logging"
        and node.attr in FORBIDDEN
    }

    assert using == EXCUSED
