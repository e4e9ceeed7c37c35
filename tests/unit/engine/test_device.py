"""Choice of device, number format and threads; tested without a GPU."""

import os
from pathlib import Path

import pytest
import torch

from serve_app.engine import cpu
from serve_app.engine import device as engine_device
from serve_app.engine.cpu import cpu_cores, suitable_passes
from serve_app.engine.device import (
    missing_kernels,
    pick_device,
    pick_precision,
    use_cpu_threads,
)
from serve_app.engine.sources import ModelLoadError

CPU = torch.device("cpu")
ALL_CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        pytest.param((7, 0), ["sm_70", "sm_80"], True, id="V100, built for it"),
        pytest.param((7, 0), ["sm_75", "sm_80", "sm_90"], False, id="V100, build begins at 7.5"),
        pytest.param((8, 9), ["sm_80", "sm_90"], True, id="minor version above"),
        pytest.param((8, 0), ["sm_86"], False, id="minor version below"),
        pytest.param((9, 0), ["sm_80"], False, id="other major version"),
        pytest.param((12, 0), ["sm_80", "compute_90"], True, id="intermediate code, newer GPU"),
        pytest.param((7, 0), ["compute_75"], False, id="intermediate code, older GPU"),
        pytest.param((9, 0), ["sm_90a"], True, id="exact code, same GPU"),
        pytest.param((10, 3), ["sm_100a"], False, id="exact code, other GPU"),
        pytest.param((12, 0), ["sm_120"], True, id="two-digit major version"),
        pytest.param((7, 0), ["gfx90a"], False, id="another maker's names"),
    ],
)
def test_a_gpu_runs_kernels_for_its_architecture(
    capability: tuple[int, int], built_for: list[str], runs: bool
) -> None:
    assert (missing_kernels(capability, built_for) is None) == runs


def test_the_error_for_an_unsupported_gpu_names_the_fix() -> None:
    problem = missing_kernels((7, 0), ["sm_75", "sm_90"])

    assert problem is not None
    assert "compute capability 7.0" in problem
    assert "sm_75 sm_90" in problem
    assert "torch 2.10.0, or the cu126 builds up to 2.14" in problem


@pytest.mark.parametrize(
    ("wanted", "precision"),
    [
        ("float32", torch.float32),
        ("bfloat16", torch.bfloat16),
        ("float16", torch.float16),
    ],
)
def test_a_named_precision_is_used(wanted: str, precision: torch.dtype) -> None:
    assert pick_precision(wanted, CPU) is precision


@pytest.mark.parametrize(("amx", "precision"), [(True, torch.bfloat16), (False, torch.float32)])
def test_auto_on_a_cpu_is_bfloat16_only_with_a_matrix_unit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, amx: bool, precision: torch.dtype
) -> None:
    flags = "avx512_bf16 amx_bf16 amx_tile" if amx else "avx512_bf16 avx512_fp16"
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} arat\n")
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")

    assert pick_precision("auto", CPU) is precision


def test_auto_on_cuda_is_float16() -> None:
    assert pick_precision("auto", torch.device("cuda")) is torch.float16


def test_an_unknown_precision_is_a_load_error() -> None:
    with pytest.raises(ModelLoadError, match="precision int8: not one of auto, float32"):
        pick_precision("int8", CPU)


def test_the_device_is_the_one_that_torch_finds() -> None:
    assert pick_device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize(
    ("built_for_cuda", "driver", "visible", "starts"),
    [
        pytest.param("12.6", "/", "0", False, id="a missing GPU"),
        pytest.param("12.6", "/", "", True, id="no GPU assigned"),
        pytest.param("12.6", "/", "-1", True, id="none wanted"),
        pytest.param("12.6", "/no/driver", "0", True, id="declared by a test cluster"),
        pytest.param(None, "/", "0", True, id="a build for CPUs"),
    ],
)
def test_a_replica_without_its_assigned_gpu_fails(
    monkeypatch: pytest.MonkeyPatch,
    built_for_cuda: str | None,
    driver: str,
    visible: str,
    starts: bool,
) -> None:
    monkeypatch.setattr(engine_device, "DRIVER", Path(driver))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for_cuda)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    if starts:
        assert pick_device().type == "cpu"
    else:
        with pytest.raises(ModelLoadError, match="assigns a GPU to this process, but CUDA finds"):
            pick_device()


def test_threads_are_set_for_this_process() -> None:
    use_cpu_threads(1)
    assert torch.get_num_threads() == 1

    use_cpu_threads(0)
    assert torch.get_num_threads() == cpu_cores()


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000", ALL_CORES),
        ("150000 100000", 1),
        ("50000 100000", 1),
        (f"{(ALL_CORES + 1) * 100_000} 100000", ALL_CORES),
        (None, ALL_CORES),
    ],
)
def test_a_container_uses_no_more_cores_than_its_limit(
    tmp_path: Path, cpu_max: str | None, cores: int
) -> None:
    if cpu_max is not None:
        (tmp_path / "cpu.max").write_text(f"{cpu_max}\n")

    assert cpu_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("device", "amx", "tokens"),
    [("cpu", False, 512), ("cpu", True, 2_048), ("cuda", False, 32_768)],
)
def test_a_gpu_takes_whole_batches_and_a_cpu_what_fits_its_caches(
    monkeypatch: pytest.MonkeyPatch, device: str, amx: bool, tokens: int
) -> None:
    monkeypatch.setattr(cpu, "cpu_multiplies_bfloat16", lambda: amx)

    assert suitable_passes(device, 32_768).tokens_max == tokens
