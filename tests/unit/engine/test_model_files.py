"""Facts from a model's own files; files that cannot be read state nothing."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from serve_app.engine.embedded.model import ADAPTER, load
from serve_app.engine.model_files import stated_facts
from serve_app.engine.sources import resolve
from serve_app.protocols.model_facts import facts
from testkit.tiny_models import build

README = """---
language: [en, no, de]
license: other
license_name: acme-1.0
license_link: https://acme.example/license
datasets:
- ms_marco
- 7
base_model: acme/base
---
# A model
license: not this
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build(tmp_path / "model")


def stated(folder: Path) -> dict[str, Any]:
    found = stated_facts(str(folder), None)
    facts(found)  # Raises if the route could not answer it.
    return found


def test_the_config_and_the_weights_state_the_architecture_and_its_size(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder)

    assert stated(folder) == {
        "architecture": type(model).__name__,
        "parameters": sum(each.numel() for each in model.parameters()),
    }


def test_the_readme_states_what_its_front_matter_has(folder: Path) -> None:
    (folder / "README.md").write_text(README)
    found = stated(folder)

    # YAML reads "no" as false, which names no language.
    assert found["languages"] == ["en", "de"]
    assert (found["license"], found["license_url"]) == ("acme-1.0", "https://acme.example/license")
    assert (found["training_data"], found["base_model"]) == (["ms_marco"], "acme/base")


@pytest.mark.parametrize(
    "readme",
    [
        b"# Only text",
        b"---\nlicense: [\n---\n",
        b"---\n- license\n---\n",
        b"---\nlicense: " + b"x" * 5_000 + b"\nlanguage: {en: de}\n---\n",
        b"---\nlicense_link: 'javascript:alert(1)'\n---\n",
        b"---\nlicense_link: 'https://a.example/\"><script>'\n---\n",
        b"---\nlicense: \xff\n---\n",
        b"---\nlicense: mit\n",
    ],
)
def test_a_readme_of_another_form_states_nothing(folder: Path, readme: bytes) -> None:
    (folder / "README.md").write_bytes(readme)

    assert stated(folder).keys() == {"architecture", "parameters"}


@pytest.mark.parametrize("content", [b"", b"\xff" * 20, b"\x02\0\0\0\0\0\0\0[]", b"\x09\0\0\0"])
def test_damaged_weights_state_no_size(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)

    assert stated(folder).keys() == {"architecture"}


def test_a_damaged_config_states_nothing(folder: Path) -> None:
    (folder / "config.json").write_text("{")

    assert stated(folder).keys() == {"parameters"}


def test_a_model_that_is_not_stored_states_nothing(tmp_path: Path) -> None:
    assert stated_facts(str(tmp_path / "missing"), None) == {}


def test_the_card_of_the_embedded_model_is_true() -> None:
    found = stated_facts("embedded", None)
    model = load(resolve("embedded", None), ADAPTER)

    assert found["architecture"] == type(model).__name__
    assert found["parameters"] == sum(each.numel() for each in model.parameters())
    data = (Path(__file__).parents[3] / "training/DATA.md").read_text()
    named = [each.split(" (")[0] for each in found["training_data"]]
    assert named == [line.split(" | ")[0][2:] for line in data.splitlines()[8:13]]
