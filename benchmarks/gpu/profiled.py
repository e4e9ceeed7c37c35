"""Where does a batch's time go: kernels, launches, copies, and gaps in which the GPU is idle?"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.speed import scored
from benchmarks.gpu.subject import TYPICAL, Subject
from benchmarks.gpu.timing import per_second, settle

TOP = 12
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")

Times = Mapping[str, tuple[int, float]]
"""Number of calls and total microseconds by name."""

Span = tuple[float, float]
"""Start and end in microseconds."""


def run(subject: Subject, found: dict[str, Any]) -> None:
    tokens = subject.sizes.production_tokens
    engine = subject.engine("float16", tokens)
    batches = subject.batches(TYPICAL, tokens)
    score = partial(scored, engine)
    activities = [ProfilerActivity.CPU]
    if subject.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    per_second(score, batches, 1, subject.sizes.seconds)  # The profile is of a warm engine.
    for in_flight in (1, 2):
        with profile(activities=activities) as measured:
            per_second(score, batches, in_flight, subject.sizes.seconds)
            settle(subject.device)
        totals = summary(measured)
        found[f"{in_flight}_in_flight"] = totals
        for name, value in totals.items():
            if not isinstance(value, list):
                print(f"  {in_flight} in flight, {name}: {value}")
        for row in totals["gpu_top"] or totals["cpu_top"]:
            print(f"    {row['share']:.3f}  {row['count']:>7}  {row['name']}")


def summary(measured: profile) -> dict[str, Any]:
    """Return the GPU's kernels and gaps, if there is one, and the CPU's operations."""
    operations = measured.key_averages()
    on_cpu = {event.key: (event.count, event.self_cpu_time_total) for event in operations}
    on_gpu = [event for event in measured.events() if event.device_type.name == "CUDA"]
    kernels: dict[str, tuple[int, float]] = {}
    for event in on_gpu:
        count, us = kernels.get(event.name, (0, 0.0))
        kernels[event.name] = count + 1, us + event.time_range.end - event.time_range.start
    copies = {name: each for name, each in kernels.items() if name.startswith("Mem")}
    spans = [(event.time_range.start, event.time_range.end) for event in on_gpu]
    return {
        "launches": sum(on_cpu[name][0] for name in LAUNCHES if name in on_cpu),
        "kernels": len(on_gpu) - sum(count for count, _ in copies.values()),
        "gpu_ms": _total_ms(kernels),
        "of_which_copies_ms": _total_ms(copies),
        "gpu_idle_share": idle_share(spans),
        "gpu_top": _top(kernels),
        "cpu_top": _top(on_cpu),
    }


def _total_ms(times: Times) -> float:
    return round(sum(us for _, us in times.values()) / 1e3, 3)


def _top(times: Times) -> list[dict[str, Any]]:
    total = sum(us for _, us in times.values()) or 1.0
    return [
        {"share": round(us / total, 4), "count": count, "name": name[:100]}
        for name, (count, us) in sorted(times.items(), key=lambda each: -each[1][1])[:TOP]
    ]


def idle_share(spans: Iterable[Span]) -> float | None:
    """Return the share of the time from the first start to the last end that no span covers."""
    ordered = sorted(spans)
    if not ordered:
        return None
    first, covered_until = ordered[0][0], ordered[0][0]
    idle = 0.0
    for start, end in ordered:
        idle += max(0.0, start - covered_until)
        covered_until = max(covered_until, end)
    return round(idle / (covered_until - first), 4) if covered_until > first else 0.0
