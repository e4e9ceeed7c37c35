"""The quality benchmark's arithmetic and errors, with a small dataset and a small model.

The dataset consists of local files in ir_datasets' formats. It replaces a public dataset in the
registry, so the documented command runs unchanged, without a download. The model is a tiny BERT.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import log2
from pathlib import Path
from statistics import mean
from typing import Any, cast

import pytest

from benchmarks.quality import ranking
from serve_app.engine.tokenizer import PairTokenizer
from serve_app.ports import Engine
from testkit import tiny_models
from testkit.judged import CollectionError, JudgedQuery, read_dataset, read_folder
from testkit.reference import reference_logits

ROOT = Path(__file__).parents[2]
DL19 = "msmarco-passage/trec-dl-2019/judged"
DEV = "msmarco-passage/dev/small"
L12 = "cross-encoder/ms-marco-MiniLM-L12-v2"

WORDS = tiny_models.WORDS
DOCUMENTS = {
    f"d{number}": " ".join(WORDS[(5 * number + 3 * step) % len(WORDS)] for step in range(6))
    for number in range(24)
}
QUERIES = {
    "q1": "what is the river in paris",
    "q2": "how does light energy do",
    "q3": "the history of music",
    "unjudged": "where is the moon",
    "q4": "why rain and snow",
}
CANDIDATES = {
    "q1": ["d3", "d1", "d2", "d0", "d8", "d9", "d10", "d11", "d12", "d13", "d14", "d15"],
    "q2": ["d7", "d5", "d6", "d4"],
    "unjudged": ["d3", "d4"],
    "q4": ["d20", "d21", "d22", "d23"],
}
"""q3 has no candidates: the first stage has missed it."""

GRADES = {
    "q1": {"d0": 3, "d1": 1, "d8": 2, "d12": 1, "d19": 3},
    "q2": {"d4": 1, "d5": 1, "d6": 2},
    "q3": {"d16": 2},
    "q4": {"d20": 0, "d21": 1, "d22": 0, "d23": 1},
}


@pytest.fixture(scope="module")
def ir_datasets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The library, with its folders outside the home directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IR_DATASETS_HOME", str(tmp_path_factory.mktemp("ir_datasets")))
        import ir_datasets  # noqa: PLC0415 - its import creates these folders

        yield ir_datasets


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.build(tmp_path_factory.mktemp("models") / "tiny")


Register = Callable[..., None]


@pytest.fixture
def register(ir_datasets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Register:
    """Register the local dataset under an id; ``candidates`` are the lines of its scoreddocs."""
    formats, local = ir_datasets.formats, ir_datasets.util.LocalDownload

    def write(dataset_id: str, name: str, lines: list[str]) -> Any:
        path = tmp_path / dataset_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return local(path)

    def put(dataset_id: str, candidates: list[str] | None, grades: Any = GRADES) -> None:
        documents = [f"{docid}\t{text}" for docid, text in DOCUMENTS.items()]
        queries = [f"{qid}\t{text}" for qid, text in QUERIES.items()]
        qrels = [f"{q} 0 {d} {grade}" for q, of in grades.items() for d, grade in of.items()]
        parts = [
            formats.TsvDocs(write(dataset_id, "docs.tsv", documents)),
            formats.TsvQueries(write(dataset_id, "queries.tsv", queries)),
            formats.TrecQrels(write(dataset_id, "qrels", qrels), {}),
        ]
        if candidates is not None:
            parts.append(formats.TrecScoredDocs(write(dataset_id, "run", candidates)))
        registered = ir_datasets.registry._registered
        monkeypatch.setitem(registered, dataset_id, ir_datasets.Dataset(*parts))

    return put


def unscored() -> list[str]:
    """Return candidates as MS MARCO's official ones: only ids, with queries in turn."""
    places = range(max(map(len, CANDIDATES.values())))
    return [f"{q}\t{of[n]}" for n in places for q, of in CANDIDATES.items() if n < len(of)]


def scored(scores: dict[str, dict[str, float]]) -> list[str]:
    return [f"{q} Q0 {d} 0 {score} run" for q, of in scores.items() for d, score in of.items()]


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    path = tmp_path / "quality.json"
    ranking.main([*arguments, "--precision", "float32", "--json", str(path)])
    answer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return answer


def expected_orders(model: Path) -> dict[str, list[str]]:
    """Rank with transformers alone, without this project's code."""
    orders = {}
    for qid in GRADES:
        docids = CANDIDATES.get(qid, [])
        logits = reference_logits(model, [(QUERIES[qid], DOCUMENTS[docid]) for docid in docids])
        orders[qid] = [docid for _, docid in sorted(zip(logits, docids, strict=True), reverse=True)]
    return orders


def expected_ndcg(qid: str, order: list[str]) -> float:
    """Compute NDCG@10 by its definition."""
    gains = [GRADES[qid].get(docid, 0) for docid in order][:10]
    ideal = sorted(GRADES[qid].values(), reverse=True)[:10]
    return sum(gain / log2(place + 2) for place, gain in enumerate(gains)) / sum(
        gain / log2(place + 2) for place, gain in enumerate(ideal)
    )


def expected_rr(qid: str, order: list[str], relevant_grade: int) -> float:
    relevant = [GRADES[qid].get(docid, 0) >= relevant_grade for docid in order[:10]]
    return 1 / (relevant.index(True) + 1) if True in relevant else 0.0


def test_one_command_measures_a_dataset(
    register: Register, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    register(DL19, unscored())

    answer = run(tmp_path, "--dataset", DL19, "--model", str(model))

    orders = expected_orders(model)
    ndcgs = [expected_ndcg(qid, orders[qid]) for qid in GRADES]
    assert 0.1 < mean(ndcgs) < 0.9
    assert [result["qid"] for result in answer["per_query"]] == list(GRADES)
    assert [result["ndcg"] for result in answer["per_query"]] == pytest.approx(ndcgs)
    assert answer["ndcg"] == pytest.approx(mean(ndcgs))
    assert answer["mrr"] == pytest.approx(mean(expected_rr(q, orders[q], 2) for q in GRADES))
    assert (answer["queries"], answer["documents"], answer["depth"]) == (4, 20, None)
    assert answer["first_stage_ndcg"] is None
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith(f"NDCG@10 {mean(ndcgs):.4f} ")


def test_mrr_counts_binary_grades_from_1(register: Register, model: Path, tmp_path: Path) -> None:
    binary = {q: {d: 1 for d, grade in of.items() if grade > 0} for q, of in GRADES.items()}
    register(DEV, unscored(), binary)

    answer = run(tmp_path, "--dataset", DEV, "--model", str(model))

    orders = expected_orders(model)
    mrr = mean(expected_rr(q, orders[q], 1) for q in GRADES)
    assert mrr != pytest.approx(mean(expected_rr(q, orders[q], 2) for q in GRADES))
    assert answer["relevant_grade"] == 1
    assert answer["mrr"] == pytest.approx(mrr)


def test_candidates_are_sorted_and_ties_keep_the_order_of_the_file(register: Register) -> None:
    register("local", scored({"q1": {"d0": 1, "d2": 3, "d3": 1, "d1": 2.5}, "q2": {"d7": 0.5}}))

    collection = read_dataset("local", depth=3)

    queries = {judged.qid: judged for judged in collection.judged}
    assert queries["q1"].docids == ("d2", "d1", "d0")
    assert queries["q1"].texts == tuple(DOCUMENTS[docid] for docid in ("d2", "d1", "d0"))
    assert queries["q1"].query == QUERIES["q1"]
    assert queries["q1"].grades == GRADES["q1"]
    assert queries["q4"].docids == ()
    assert "unjudged" not in queries
    assert collection.ordered


def test_candidates_without_scores_keep_the_order_of_the_file(register: Register) -> None:
    register("local", unscored())

    collection = read_dataset("local", depth=None, queries_max=2)

    assert [list(judged.docids) for judged in collection.judged] == [
        CANDIDATES["q1"],
        CANDIDATES["q2"],
    ]
    assert not collection.ordered


def test_a_first_stage_with_scores_is_measured_too(
    register: Register, model: Path, tmp_path: Path
) -> None:
    falling = {q: {d: float(-n) for n, d in enumerate(of)} for q, of in CANDIDATES.items()}
    register("ordered", scored(falling))

    answer = run(tmp_path, "--dataset", "ordered", "--model", str(model))

    first_stage = mean(expected_ndcg(qid, CANDIDATES.get(qid, [])) for qid in GRADES)
    assert answer["first_stage_ndcg"] == pytest.approx(first_stage)
    assert answer["first_stage_ndcg"] != pytest.approx(answer["ndcg"])


def test_a_query_without_candidates_is_not_scored() -> None:
    missed = JudgedQuery("q", "", (), (), {"d": 1})

    assert ranking.rerank(cast(Engine, None), cast(PairTokenizer, None), missed) == []
    assert ranking.ndcg(missed, ()) == ranking.reciprocal_rank(missed, ()) == 0


@pytest.mark.parametrize(
    ("grade", "relevant_grade", "rr"), [(1, 1, 0.5), (1, 2, 0.0), (2, 2, 0.5), (3, 2, 0.5)]
)
def test_mrr_counts_from_the_relevant_grade(grade: int, relevant_grade: int, rr: float) -> None:
    judged = JudgedQuery("q", "", ("a", "b"), ("", ""), {"b": grade})

    assert ranking.reciprocal_rank(judged, ("a", "b"), relevant_grade) == rr


def test_mrr_ends_at_rank_ten() -> None:
    docids = tuple(f"d{number}" for number in range(11))
    judged = JudgedQuery("q", "", docids, docids, {"d10": 1})

    assert ranking.reciprocal_rank(judged, docids) == 0
    assert ranking.reciprocal_rank(judged, docids[1:]) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("dataset_id", "candidates", "words"),
    [
        pytest.param("local", None, "it offers no scoreddocs", id="nothing to rerank"),
        pytest.param("local", ["q1\td99"], "document d99", id="a candidate that is no document"),
        pytest.param("local", ["q9\td1"], None, id="queries without candidates are read"),
        pytest.param("no/such/id", None, "knows no such id", id="unknown id"),
    ],
)
def test_missing_parts_of_a_dataset_are_reported(
    dataset_id: str, candidates: list[str] | None, words: str | None, register: Register
) -> None:
    register("local", candidates)

    if words is None:
        assert read_dataset(dataset_id, None).queries == len(GRADES)
        return

    with pytest.raises(CollectionError, match=words):
        read_dataset(dataset_id, None)


def test_a_collection_without_judgements_is_refused(register: Register) -> None:
    register("local", unscored(), {"q99": {"d1": 1}})

    with pytest.raises(CollectionError, match="no query has a judgement"):
        read_dataset("local", None)


def test_a_folder_without_its_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollectionError, match=r"neither qrels\.txt nor qrels\.txt\.gz"):
        read_folder(tmp_path, depth=1)


@pytest.fixture
def offline(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An environment in which every connection is refused: the proxy port has no listener."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{held.getsockname()[1]}"
        proxies = {
            spelling: proxy
            for name in ("http_proxy", "https_proxy", "all_proxy")
            for spelling in (name, name.upper())
        }
        homes = {"IR_DATASETS_HOME": str(tmp_path / "ir_datasets"), "HF_HOME": str(tmp_path / "hf")}
        unset = {"NO_PROXY": "", "no_proxy": "", "HF_HUB_OFFLINE": "0"}
        yield {**os.environ, **proxies, **homes, **unset}  # noqa: TID251 - for a child process


@pytest.mark.slow  # Starts processes that wait for a hub.
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(
            ("--dataset", DL19, "--model", "embedded"),
            f"quality: dataset {DL19}: cannot be fetched (ProxyError at "
            "https://trec.nist.gov/data/deep/2019qrels-pass.txt); its first use needs the "
            "network; on a machine without one use --data FOLDER",
            id="the dataset",
        ),
        pytest.param(
            ("--data", "tests/quality/data", "--model", L12),
            f"quality: model {L12}: the hub cannot be reached and the model is not in the local "
            "cache; copy it to this node and name its folder instead, or use `embedded`",
            id="the model",
        ),
    ],
)
def test_a_missing_network_is_reported_in_one_line(
    arguments: tuple[str, ...], line: str, offline: dict[str, str]
) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.quality.ranking", *arguments],
        cwd=ROOT,
        env=offline,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    said = [text for text in answer.stderr.splitlines() if "data usage agreement" not in text]
    assert said == [line]
    assert answer.stdout == ""
    assert answer.returncode == 1
