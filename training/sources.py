"""Sources of the held-out collections: data sets and documentation with open licences.

Each source returns documents and the questions that they answer. A question and its answers
belong together by construction: a question and its answer in a FAQ, a heading and its section, two
messages with the same intent. A document is cut at `CHARACTERS_MAX`.
"""

import csv
import html
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from training.data import held_out, read_set

CHARACTERS_MAX = 1_600
"""Longest document: about 400 tokens."""

WORDS_MIN = 8
"""Shortest document, apart from the messages of BANKING77."""

INTENT_MESSAGES = 6
"""Messages of each intent of BANKING77 that are documents."""

PASSAGE_WORDS = 150
"""Length of the passages into which articles of COVID-QA are cut."""

AGES = ("Infant", "Child", "Adolescent", "Adult", "Young Adult", "Middle Aged", "Aged")
CHECK_TAGS = frozenset(("Humans", "Animals", "Male", "Female", "Pregnancy", *AGES)) | {
    "Aged, 80 and over",
    "Child, Preschool",
    "Infant, Newborn",
}
"""MeSH headings that most articles have, so that searches do not name them."""


@dataclass(slots=True)
class Source:
    """Documents by id, and questions with the ids of their answers."""

    documents: dict[str, str] = field(default_factory=dict)
    questions: list[tuple[str, list[str]]] = field(default_factory=list)

    def add(self, question: str, answer: str) -> None:
        """Add a question with its answer, unless one of them is too short."""
        answer = shortened(answer)
        if len(answer.split()) >= WORDS_MIN and len(question.split()) >= 2:
            identity = identity_of(answer)
            self.documents[identity] = answer
            self.questions.append((" ".join(question.split()), [identity]))


def identity_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]


def shortened(text: str) -> str:
    """Return ``text`` with single spaces, cut after a whole word."""
    text = " ".join(text.split())
    return text if len(text) <= CHARACTERS_MAX else text[:CHARACTERS_MAX].rpartition(" ")[0]


def held_out_set(data: Path, name: str) -> Source:
    """Return the held-out passages of the training set ``name``, and their questions."""
    passages, pairs = read_set(data, name)
    kept = {place: shortened(text) for place, text in passages.items() if held_out(place)}
    source = Source({identity_of(text): text for text in kept.values()})
    for pair in pairs:
        if pair["positive"] in kept:
            source.questions.append((pair["query"], [identity_of(kept[pair["positive"]])]))
    return source


def subject_headings(data: Path, sources: Path) -> Source:
    """Return abstracts of PubMedQA; a question is all MeSH headings of one of them."""
    source = held_out_set(data, "pubmedqa-l")
    articles = json.loads((sources / "pubmedqa.json").read_text())
    headings = {
        article["QUESTION"]: [name for name in article["MESHES"] if name not in CHECK_TAGS]
        for article in articles.values()
    }
    source.questions = [
        (" ".join(headings[query]).replace(",", "").lower(), answers)
        for query, answers in source.questions
        if len(headings.get(query, ())) >= 4
    ]
    return source


def covid_articles(sources: Path) -> Source:
    """Return passages of the articles of COVID-QA, and the questions that experts asked."""
    source = Source()
    for article in json.loads((sources / "covid-qa.json").read_text())["data"]:
        for paragraph in article["paragraphs"]:
            words = [match.span() for match in re.finditer(r"\S+", paragraph["context"])]
            places = []
            for start in range(0, len(words), PASSAGE_WORDS):
                last = words[min(start + PASSAGE_WORDS, len(words)) - 1]
                text = shortened(paragraph["context"][words[start][0] : last[1]])
                places.append((last[1], identity_of(text)))
                source.documents[identity_of(text)] = text
            for asked in paragraph["qas"]:
                answer = asked["answers"][0]
                middle = answer["answer_start"] + len(answer["text"]) // 2
                holder = next(identity for end, identity in places if middle <= end)
                source.questions.append((asked["question"], [holder]))
    return source


def banking_messages(sources: Path) -> Source:
    """Return messages of BANKING77; messages of a customer with the same intent are relevant."""
    source = Source()
    intents: dict[str, list[str]] = {}
    for row in sorted(_rows(sources / "banking77-train.csv"), key=lambda row: identity_of(row[0])):
        same = intents.setdefault(row[1], [])
        if len(same) < INTENT_MESSAGES:
            same.append(identity_of(row[0]))
            source.documents[same[-1]] = " ".join(row[0].split())
    for message, intent in _rows(sources / "banking77-test.csv"):
        source.questions.append((" ".join(message.split()), intents[intent]))
    return source


def _rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text())))[1:]


def programming_faq(sources: Path) -> Source:
    """Return questions and answers of the FAQs of Perl and Python."""
    source = Source()
    for _, pod in packaged(sources / "perl-doc.deb", r"pod/perlfaq\d\.pod$"):
        for question, answer in re.findall(
            r"^=head2 ([^\n]+)\n(.*?)(?=^=head|\Z)", pod, re.M | re.S
        ):
            source.add(plain_pod(question), plain_pod(answer))
    for _, rst in packaged(sources / "python3-doc.deb", r"_sources/faq/\w+\.rst\.txt$"):
        for question, answer in rst_sections(rst):
            if question.endswith("?"):
                source.add(question, answer)
    return source


def rst_sections(rst: str) -> Iterator[tuple[str, str]]:
    """Yield the headings that are underlined with hyphens or equals signs, and their sections."""
    parts = re.split(r"^(\S.*)\n(?:-{4,}|={4,})$", plain_rst(rst), flags=re.M)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def python_modules(sources: Path) -> Source:
    """Return introductions to Python's modules; a question is a module's synopsis."""
    source = Source()
    for _, rst in packaged(sources / "python3-doc.deb", r"_sources/library/\w+\.rst\.txt$"):
        if found := re.search(r":synopsis: (.+)", rst):
            body = re.split(r"^-{10,}$", rst, maxsplit=1, flags=re.M)[-1]
            source.add(plain_rst(found[1]), plain_rst(body))
    return source


def database_manual(sources: Path) -> Source:
    """Return sections of SQLite's manual; a question is the titles of page and section."""
    source = Source()
    for _, page in packaged(sources / "sqlite3-doc.deb", r"doc/sqlite3/\w+\.html$"):
        title = re.search(r"<title>(.*?)</title>", page, re.S)
        parts = re.split(r"<h[1-4][^>]*><span>[\d.]+\s*</span>(.*?)</h[1-4]>", page, flags=re.S)
        for heading, section in zip(parts[1::2], parts[2::2], strict=True):
            if title:
                source.add(f"{plain_html(title[1])} {plain_html(heading)}", plain_html(section))
    return source


def plain_html(text: str) -> str:
    text = re.sub(r"<(script|style|svg).*?</\1>", " ", text, flags=re.S)
    return html.unescape(re.sub(r"<[^>]*>", " ", text))


def plain_pod(text: str) -> str:
    text = re.sub(r"X<[^>]*>|^=\w+.*$", " ", text, flags=re.M)
    text = re.sub(r"L<([^<>|]*)\|[^<>]*>", r"\1", text)
    return re.sub(r"[A-Z]<+\s*([^<>]*?)\s*>+", r"\1", text)


def plain_rst(text: str) -> str:
    text = re.sub(r"^\s*\.\. .*$|^\s+:\w+:.*$", "", text, flags=re.M)
    text = re.sub(r":[\w:]+:`[~!]?([^`<]*?)(?:\s*<[^`>]*>)?`", r"\1", text)
    return re.sub(r"`+([^`]*?)(?:\s*<[^`>]*>)?`+_*", r"\1", text).replace("**", "")


def packaged(package: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Yield names and texts of the files of a Debian package whose names match, sorted."""
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    content = subprocess.run(command, check=True, capture_output=True).stdout  # noqa: S603 - an argument list
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in sorted(archive.getmembers(), key=lambda each: each.name):
            found = archive.extractfile(member) if member.isfile() else None
            if found is not None and re.search(pattern, member.name):
                yield member.name, found.read().decode()


SOURCES: dict[str, Callable[[Path, Path], Source]] = {
    "banking-messages": lambda _, sources: banking_messages(sources),
    "covid-articles": lambda _, sources: covid_articles(sources),
    "database-manual": lambda _, sources: database_manual(sources),
    "health-questions": lambda data, _: held_out_set(data, "medquad"),
    "programming-faq": lambda _, sources: programming_faq(sources),
    "python-modules": lambda _, sources: python_modules(sources),
    "research-questions": lambda data, _: held_out_set(data, "pubmedqa-l"),
    "subject-headings": subject_headings,
    "web-questions": lambda data, _: held_out_set(data, "clapnq-dev"),
}
"""Collections by name. Each takes the folders of the training sets and of `collections.FILES`."""
