"""Create a lab, and wait until its service is ready."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from cluster.lab import model, namespaces, plan, service
from cluster.lab.lab import Lab
from cluster.lab.namespaces import LabError
from serve_app.private_files import private_folder

AT_ONCE = 8
THREADS = "rerank-lab"
"""Prefix of the names of the threads that prepare the hosts."""

Say = Callable[[str], None]


def up(
    folder: Path,
    model_folder: Path | None,
    say: Say,
    *,
    gpu_nodes: int = plan.GPU_NODES,
    gpu_tokens_per_s: float | None = None,
    config: Path = service.PRODUCTION,
) -> Lab:
    """Create the lab in ``folder``, which must not exist, and wait until its service is ready.

    After a failure, no process is left; the folder stays, for its logs.

    Args:
        model_folder: The model to serve; ``None`` means a tiny one.
        gpu_tokens_per_s: Speed of simulated GPUs; ``None`` means that scorers use the CPU.
        config: The Serve config file.

    Raises: LabError; its subclass NoNamespaces when this system allows no namespaces.
    """
    started = time.monotonic()
    in_user_namespace = namespaces.needs_user_namespace()
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise LabError(f"'{folder}' exists. 'python -m cluster.lab down' removes a lab.") from None
    private_folder(folder)
    outer = namespaces.create_outer(folder, in_user_namespace=in_user_namespace)
    lab = Lab(folder, in_user_namespace, secrets.token_hex(32), outer)
    lab.save()
    try:
        lab.gpu_tokens_per_s = gpu_tokens_per_s
        if gpu_tokens_per_s is not None:
            config = service.with_simulated_gpus(config, folder)
        _start(lab, plan.hosts(gpu_nodes), model_folder, config, say)
        lab.up_s = round(time.monotonic() - started, 1)
        lab.save()
    except BaseException:
        lab.end()
        _wait_for_threads()
        raise
    return lab


def _start(
    lab: Lab, hosts: Sequence[plan.Host], model_folder: Path | None, config: Path, say: Say
) -> None:
    lab.network.create()
    for host in hosts:
        lab.create_host(host)
    lab.save()
    say(f"{len(lab.hosts)} hosts run.")
    with ThreadPoolExecutor(AT_ONCE, THREADS) as threads:
        ledger = threads.submit(_prepare_ledger, lab)
        models = threads.submit(_prepare_models, lab.folder, model_folder)
        lab.start_redis()
        lab.start_node(plan.BY_NAME[plan.HEAD])
        say("The head of the Ray cluster runs.")
        workers = [
            threads.submit(lab.start_node, host) for host in lab.nodes() if host.name != plan.HEAD
        ]
        _results([ledger, models, *workers])
    lab.save()
    say(f"All {len(lab.nodes())} nodes of the Ray cluster, PostgreSQL and Redis run.")
    lab.deploy(config)
    say(f"{config.name} is deployed; waiting for its replicas ...")
    lab.wait_until_ready()


def _wait_for_threads() -> None:
    """Wait until no thread writes to the folder any more.

    If a signal interrupts the start of a thread, its pool does not wait for it.
    """
    for thread in threading.enumerate():
        if thread.name.startswith(THREADS):
            thread.join()


def _prepare_ledger(lab: Lab) -> None:
    lab.start_postgres()
    lab.create_ledger()


def _prepare_models(folder: Path, model_folder: Path | None) -> None:
    if model_folder is None:
        model_folder = folder / "model"
        model.build_tiny(model_folder)
    model.fill_cache(model.hub_models(service.PRODUCTION), model_folder, folder / "huggingface")


def _results(futures: Sequence["Future[None]"]) -> None:
    for future in futures:
        future.result()
