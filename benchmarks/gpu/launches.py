"""What does a pass cost besides its tokens, and do CUDA graphs or `torch.compile` lower that?

Passes of 64-token pairs, many launched in a row: as the engine launches them, as a CUDA graph, and
compiled. `pass_cost_tokens` is the time of the smallest pass in tokens of the largest, which
`serve_app.engine.cpu.suitable_passes` estimates as 1,024.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.gpu.subject import Subject
from benchmarks.gpu.timing import milliseconds
from serve_app.engine.assembly import through_torch
from serve_app.engine.cls_only import ClsOnlyEncoder, head_logits
from serve_app.engine.mixed_precision import shorten
from serve_app.engine.sources import first_line
from serve_app.engine.torch_forward import Inputs

LENGTH = 64

Compute = Callable[[Inputs], torch.Tensor]


def run(subject: Subject, found: dict[str, Any]) -> None:
    eager = through_torch(subject.model(), torch.float16, subject.device)
    with torch.inference_mode():
        _measure(subject, found, "eager", partial(partial, eager))
        cost = pass_cost_tokens(found["eager"])
        found["pass_cost_tokens"] = cost
        print(f"  a pass costs as much as {cost} tokens")
        if subject.device.type != "cuda":
            found["graph"] = found["compiled"] = "not measured: needs a GPU"
            print("  CUDA graphs and torch.compile need a GPU")
            return
        _measure(subject, found, "graph", partial(_captured, eager))
        _measure(subject, found, "compiled", partial(partial, _compiled(subject)))


def _measure(
    subject: Subject,
    found: dict[str, Any],
    name: str,
    prepare: Callable[[Inputs], Callable[[], Any]],
) -> None:
    """Store the milliseconds per pass by its number of pairs, or the error."""
    times: dict[int, float] = {}
    found[name] = times
    try:
        for rows in subject.sizes.pass_rows:
            launch = prepare(_inputs(subject, rows))
            times[rows] = round(milliseconds(launch, subject.device, subject.sizes.seconds), 4)
            print(f"  {name}, {rows} x {LENGTH} tokens: {times[rows]} ms")
    except Exception as error:  # noqa: BLE001 - a compiler may raise anything
        found[f"{name}_error"] = first_line(error)
        print(f"  {name}: {found[f'{name}_error']}")


def pass_cost_tokens(times: dict[int, float]) -> int:
    """Return the fixed cost of a pass in tokens, from milliseconds by number of pairs."""
    (small, small_ms), (large, large_ms) = min(times.items()), max(times.items())
    token_ms = large_ms / (large * LENGTH)
    return max(0, round(small_ms / token_ms - small * LENGTH))


def _inputs(subject: Subject, rows: int) -> Inputs:
    shape = (rows, LENGTH)
    return {
        "input_ids": torch.randint(5, 100, shape, device=subject.device),
        "attention_mask": torch.ones(shape, dtype=torch.int64, device=subject.device),
        "token_type_ids": torch.zeros(shape, dtype=torch.int64, device=subject.device),
    }


def _captured(compute: Compute, inputs: Inputs) -> Callable[[], Any]:
    """Return a function that replays ``compute`` as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            compute(inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        compute(inputs)

    def replay() -> Inputs:
        graph.replay()
        return inputs  # The graph reads their memory, so they must not be freed.

    return replay


def _compiled(subject: Subject) -> Compute:
    model = subject.model()
    shorten(model, torch.float16)
    model.to(subject.device)
    encoder: Any = torch.compile(ClsOnlyEncoder(model.base_model), dynamic=True)
    return partial(head_logits, model, encoder)
