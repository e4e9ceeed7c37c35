"""Calls of Ray's gRPC services, as a program on the network can send them.

``python -m tests.support.ray_calls ADDRESS:PORT ...`` prints the answers as JSON.
"""

import importlib
import json
import pkgutil
import queue
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import ray.core.generated
from ray.serve.generated import serve_pb2

READY_S, TIMEOUT_S = 20.0, 60.0
"""Time for a connection, and for an answer, also when all of `AT_ONCE` threads call methods."""

NO_TOKEN, WRONG_TOKEN = None, "0f" * 32
REFUSALS = {"UNAUTHENTICATED", "UNIMPLEMENTED"}
AT_ONCE = 16

OBJECT_MANAGER = [f"/ray.rpc.ObjectManagerService/{name}" for name in ("Push", "Pull")]
"""Ray has no Python module for this service."""

HANDLE_REQUEST = "/ray.serve.ASGIService/HandleRequest"
"""Calls a replica, which unpickles the metadata of the call."""

Answers = Mapping[str, list[str]]
"""Methods by the status of their answer."""


def methods() -> list[str]:
    """Return all methods of Ray's services."""
    names = [each.name for each in pkgutil.iter_modules(ray.core.generated.__path__)]
    modules = [
        importlib.import_module(f"ray.core.generated.{name}")
        for name in names
        if name.endswith("_pb2")
    ]
    return [*OBJECT_MANAGER, *(name for each in [*modules, serve_pb2] for name in _methods(each))]


def _methods(module: Any) -> Iterator[str]:
    for service in module.DESCRIPTOR.services_by_name.values():
        for method in service.methods:
            yield f"/{service.full_name}/{method.name}"


def answers_without_the_token(targets: Sequence[str]) -> dict[str, Answers]:
    """Call all methods at each of ``targets``, ``address:port``, with empty messages.

    Every method is called without a token and with a wrong one. Targets without a gRPC server are
    left out.
    """
    bodies = dict.fromkeys(methods(), b"")

    def answers(target: str) -> Answers:
        return {
            status: [*found]
            for token in (NO_TOKEN, WRONG_TOKEN)
            for status, found in call(target, bodies, token).items()
        }

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return {
            target: found
            for target, found in zip(targets, threads.map(answers, targets), strict=True)
            if found
        }


def call(target: str, bodies: Mapping[str, bytes], token: str | None) -> Answers:
    """Call methods at ``target``; ``bodies`` has their messages.

    The result is empty if no gRPC server listens there.
    """
    metadata = None if token is None else (("authorization", f"Bearer {token}"),)
    found: defaultdict[str, list[str]] = defaultdict(list)
    with grpc.insecure_channel(target, options=(("grpc.enable_http_proxy", 0),)) as channel:
        if not _is_ready(channel):
            return {}
        sent = {
            name: channel.unary_unary(name).future(body, timeout=TIMEOUT_S, metadata=metadata)
            for name, body in bodies.items()
        }
        for name, answer in sent.items():
            found[answer.code().name].append(name)
    return found


def _is_ready(channel: grpc.Channel) -> bool:
    """Connect, and return whether a gRPC server listens. Other servers refuse its first bytes."""
    states: queue.SimpleQueue[grpc.ChannelConnectivity] = queue.SimpleQueue()
    channel.subscribe(states.put, try_to_connect=True)
    give_up_at = time.monotonic() + READY_S
    while (left_s := give_up_at - time.monotonic()) > 0:
        try:
            state = states.get(timeout=left_s)
        except queue.Empty:
            break
        if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
            return bool(state is grpc.ChannelConnectivity.READY)
    return False


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answers_without_the_token(sys.argv[1:])))
