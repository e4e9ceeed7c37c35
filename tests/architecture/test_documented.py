"""The docs are current, complete and connected. Idea: Datasette."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from docs.generate import FOLDER, pages
from serve_app.deployments.serve_config import read_serve_config, settings_in
from serve_app.settings.live import LiveSettings
from tests.support.snippets import PAGES, ROOT, prose, snippets

GENERATED = pages()
LANGUAGES = {"bash", "json", "python", "text", "yaml"}
NOT_RUN = {
    "downloads a model": 2,
    "installs packages": 7,
    "needs AWS": 1,
    "needs Docker": 2,
    "needs Kubernetes": 7,
    "needs PostgreSQL; tests/unit/ledger/test_backup.py runs it": 2,
    "needs a cluster": 6,
    "needs a day's complete logs": 1,
    "needs a stopped service; tests/unit/ledger/test_backup.py runs it": 1,
    "needs two sweeps": 1,
    "runs all tests": 1,
    "runs tests": 1,
    "runs until Ctrl-C": 3,
    "starts the lab": 3,
    "takes minutes": 2,
    "writes into the repository": 1,
}
"""The number of blocks that no test of the docs runs, by reason."""

FOLDERS = ("benchmarks", "examples", "loadtests")
LINKED = [*PAGES, *(ROOT / folder / "README.md" for folder in FOLDERS)]
LINK = re.compile(r"\]\(([^)#\s]+)")


def of_page(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("name", GENERATED)
def test_generated_pages_are_current(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == GENERATED[name], "run `make docs`"


def test_links_lead_to_files_of_the_repository() -> None:
    broken = [
        f"{of_page(page)}: {target}"
        for page in LINKED
        for target in LINK.findall("\n".join(prose(page)))
        if "://" not in target and not (page.parent / target).exists()
    ]

    assert not broken


def test_every_block_has_a_known_language() -> None:
    unknown = [
        f"{of_page(page)}: {each.language}"
        for page in PAGES
        for each in snippets(page)
        if each.language not in LANGUAGES
    ]

    assert not unknown


def test_commands_are_in_fenced_blocks_which_are_run() -> None:
    indented = [
        (of_page(page), line)
        for page in PAGES
        for line in prose(page)
        if line.startswith("    ") and page.parent.name != "decisions"
    ]

    assert indented == [("README.md", "    make test test-lab")]


def test_the_number_of_blocks_that_are_not_run_is_bounded() -> None:
    reasons = Counter(each.reason for page in PAGES for each in snippets(page) if each.reason)

    assert reasons == NOT_RUN


@pytest.mark.parametrize(
    "text", [each.text for page in PAGES for each in snippets(page) if each.language == "json"]
)
def test_json_blocks_are_json(text: str) -> None:
    json.loads(text)


@pytest.mark.parametrize(
    "text", [each.text for page in PAGES for each in snippets(page) if each.language == "yaml"]
)
def test_yaml_blocks_are_a_part_of_a_serve_config_file(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RERANK_DATABASE_URL", "sqlite://")
    content = yaml.safe_load(text)
    live = {name: content.pop(name) for name in LiveSettings.model_fields if name in content}
    applications = content.pop("applications", [{"import_path": "serve_app.app:scorer"} | content])
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"applications": applications}))

    config = read_serve_config(path)
    LiveSettings(**live)
    if len(applications) > 1:
        settings_in(config)


def test_lines_are_short() -> None:
    """Table rows, list items that are one link, and generated pages may be longer."""
    long = [
        f"{of_page(page)}: {line}"
        for page in PAGES
        for line in page.read_text(encoding="utf-8").splitlines()
        if len(line) > 100 and not line.startswith(("|", "- [")) and page.parent.name != "reference"
    ]

    assert not long


def test_the_readme_fits_on_a_screen_or_two() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 70


def test_every_example_is_named_in_its_readme() -> None:
    readme = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^- `([^`]+)`:", readme, re.MULTILINE))
    files = {path.name for path in (ROOT / "examples").iterdir() if path.is_file()}

    assert named | {"README.md"} == files
