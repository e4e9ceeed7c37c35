"""How many documents per second can a GPU score at most? Computed, not measured.

    python -m benchmarks.engine.bound

The bound is the float16 peak of a GPU's matrix units (dense, from the vendors' data sheets) divided
by the operations that a pair needs in 12 layers of size 384 (`minilm.needed_flop`). No engine
reaches it: on a CPU, this engine reaches 0.6 to 0.9 of the peak.
"""

from rich.console import Console
from rich.table import Table
from transformers import BertConfig

from benchmarks.engine.minilm import SHAPE, needed_flop

PEAK_TFLOP_PER_S = {
    "V100": 125,
    "T4": 65,
    "A10": 125,
    "L4": 121,
    "A100": 312,
    "H100 SXM": 989,
    "H200": 989,
}
LENGTHS = (16, 67, 128, 256, 512)


def main() -> None:
    config = BertConfig(**SHAPE)
    table = Table("GPU", *(f"{length} tokens" for length in LENGTHS))
    for gpu, peak in PEAK_TFLOP_PER_S.items():
        bounds = (peak * 1e12 / needed_flop(config, [length]) for length in LENGTHS)
        table.add_row(gpu, *(f"{bound:,.0f}" for bound in bounds))
    Console().print(table)


if __name__ == "__main__":
    main()
