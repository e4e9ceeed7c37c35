"""The held-out collections: their sources, their form, and that no training passage is in them."""

import json
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
import requests
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from testkit.judged import json_lines, read_folder
from tests.support.http_server import listening
from tests.support.training_texts import write_generated, write_set
from training import sources
from training.collections import CANDIDATES, QUERIES_MAX, File, WrongContent, build, fetch
from training.data import held_out
from training.sources import Source, held_out_set, identity_of, shortened

POD = """=head1 NAME

perlfaq5 - Files

=head2 How do I flush C<STDOUT>?
X<flush> X<buffer>

Set the special variable C<$|> to a true value; see L<the manual|perlvar> for the
other handles.

=head2 Short

Too short.

=head1 AUTHOR

Copyright by the authors of this text, all of them.
"""

FAQ = """General
=======

Where is the file of :mod:`math`?
---------------------------------

.. index:: nothing

It is a built-in module that is `written in C <https://example.org>`_, so there is no file.

Not a question
--------------

This section belongs to no question and so it is left out of the documents.
"""

MODULE = """:mod:`bisect` --- Array bisection
==================================

.. module:: bisect
   :synopsis: Array bisection algorithms for binary searching.

--------------

This module provides support for maintaining a list in sorted order without sorting it.
"""

PAGE = """<title>Write-Ahead &amp; Logging</title>
<h1 id="a"><span>2. </span>How it <i>works</i></h1>
<p>The changes are written to a <b>separate</b> file and later moved to the database.</p>
<h2 id="b"><span>2.1. </span>Short</h2><p>No.</p>"""


def write_package(path: Path, files: dict[str, str]) -> None:
    root = path.with_suffix("")
    for name, text in {
        **files,
        "DEBIAN/control": "Package: a\nVersion: 1\nArchitecture: all\n"
        "Maintainer: a <a@example.org>\nDescription: a\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["dpkg-deb", "--build", str(root), str(path)], check=True, capture_output=True)


def asked(source: Source) -> dict[str, list[str]]:
    return {
        query: [source.documents[answer] for answer in answers]
        for query, answers in source.questions
    }


def test_the_faq_has_questions_with_their_answers_as_plain_text(tmp_path: Path) -> None:
    write_package(tmp_path / "perl-doc.deb", {"pod/perlfaq5.pod": POD, "pod/perlvar.pod": POD})
    write_package(tmp_path / "python3-doc.deb", {"html/_sources/faq/general.rst.txt": FAQ})

    found = asked(sources.programming_faq(tmp_path))

    assert found == {
        "How do I flush STDOUT?": [
            "Set the special variable $| to a true value; see the manual for the other handles."
        ],
        "Where is the file of math?": [
            "It is a built-in module that is written in C, so there is no file."
        ],
    }


def test_a_module_is_the_answer_to_its_synopsis(tmp_path: Path) -> None:
    write_package(tmp_path / "python3-doc.deb", {"html/_sources/library/bisect.rst.txt": MODULE})

    ((query, (answer,)),) = asked(sources.python_modules(tmp_path)).items()

    assert query == "Array bisection algorithms for binary searching."
    assert answer.startswith("This module provides support")


def test_a_section_is_the_answer_to_the_titles_of_its_page_and_itself(tmp_path: Path) -> None:
    write_package(tmp_path / "sqlite3-doc.deb", {"doc/sqlite3/wal.html": PAGE})

    assert asked(sources.database_manual(tmp_path)) == {
        "Write-Ahead & Logging How it works": [
            "The changes are written to a separate file and later moved to the database."
        ]
    }


def test_messages_with_the_same_intent_are_relevant(tmp_path: Path) -> None:
    rows = [f"message {place} about {intent},{intent}" for intent in "ab" for place in range(9)]
    (tmp_path / "banking77-train.csv").write_text("\n".join(["text,category", *rows]))
    (tmp_path / "banking77-test.csv").write_text('text,category\n"where, then",a\n')

    source = sources.banking_messages(tmp_path)

    assert len(source.documents) == 2 * sources.INTENT_MESSAGES
    (answers,) = asked(source).values()
    assert len(answers) == sources.INTENT_MESSAGES
    assert all(answer.endswith("about a") for answer in answers)


def test_the_passage_that_contains_the_answer_is_relevant(tmp_path: Path) -> None:
    words = [f"w{place}" for place in range(400)]
    article = " ".join(words)
    question = {
        "question": "q?",
        "answers": [{"text": "w200", "answer_start": article.index("w200")}],
    }
    content = {"data": [{"paragraphs": [{"context": article, "qas": [question]}]}]}
    (tmp_path / "covid-qa.json").write_text(json.dumps(content))

    source = sources.covid_articles(tmp_path)

    assert [len(each.split()) for each in source.documents.values()] == [150, 150, 100]
    assert asked(source) == {"q?": [" ".join(words[150:300])]}


def test_subject_headings_are_searched_without_those_of_every_article(tmp_path: Path) -> None:
    place = next(place for place in range(9) if held_out(place))
    passages = [(place, "An abstract about mice.")]
    pairs = [{"query": "Mice?", "positive": place, "negatives": []}]
    write_set(tmp_path, "pubmedqa-l", passages, pairs)
    headings = ["Humans", "Mice", "Cheese, Blue", "Traps", "Aged", "Night"]
    articles = {"1": {"QUESTION": "Mice?", "MESHES": headings}}
    (tmp_path / "pubmedqa.json").write_text(json.dumps(articles))

    found = asked(sources.subject_headings(tmp_path, tmp_path))

    assert found == {"mice cheese blue traps night": ["An abstract about mice."]}


def test_passages_of_the_training_half_are_left_out(tmp_path: Path) -> None:
    passages = [(place, f"passage number {place}") for place in range(40)]
    pairs = [{"query": f"q{place}", "positive": place, "negatives": []} for place in range(40)]
    write_set(tmp_path, "medquad", passages, pairs)

    source = held_out_set(tmp_path, "medquad")

    kept = {place for place in range(40) if int(sha256(str(place).encode()).hexdigest(), 16) % 2}
    assert 10 < len(kept) < 30
    assert set(source.documents.values()) == {f"passage number {place}" for place in kept}
    assert set(asked(source)) == {f"q{place}" for place in kept}


def test_documents_are_cut_after_a_whole_word() -> None:
    text = shortened("word\n " * 1_000)

    assert sources.CHARACTERS_MAX - 5 <= len(text) <= sources.CHARACTERS_MAX
    assert set(text.split(" ")) == {"word"}


def test_a_collection_is_readable_and_the_same_in_every_build(tmp_path: Path) -> None:
    write_generated(tmp_path, "clapnq-dev", 200)
    source = held_out_set(tmp_path, "clapnq-dev")

    build(source, tmp_path / "first")
    source.questions.reverse()
    build(source, tmp_path / "second")

    for name in ("queries.tsv", "qrels.txt", "candidates.jsonl.gz"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    judged = list(read_folder(tmp_path / "first", depth=99).judged)
    assert 50 < len(judged) <= QUERIES_MAX
    for each in judged:
        assert len(each.docids) >= CANDIDATES
        assert each.grades.keys() <= set(each.docids), "answers are candidates"
    first = next(iter(json_lines(tmp_path / "first", "candidates.jsonl")))
    scores = [each["bm25"] for each in first["candidates"]]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0
    lines = (tmp_path / "first/queries.tsv").read_text().splitlines()
    qids = [line.split("\t")[0] for line in lines]
    assert qids == sorted(identity_of(each.query) for each in judged)


def test_a_file_is_downloaded_once_and_checked(tmp_path: Path) -> None:
    async def served(_: object) -> PlainTextResponse:
        return PlainTextResponse("content")

    right = sha256(b"content").hexdigest()
    with listening(Starlette(routes=[Route("/a", served)])) as address:
        fetch("a", File(f"{address}/a", right), tmp_path)
        with pytest.raises(WrongContent, match="delete it and try again"):
            fetch("b", File(f"{address}/a", "0" * 64), tmp_path)
        with pytest.raises(requests.HTTPError, match="404"):
            fetch("c", File(f"{address}/missing", right), tmp_path)
    fetch("a", File("http://unreachable.invalid", right), tmp_path)

    assert (tmp_path / "a").read_text() == "content"
