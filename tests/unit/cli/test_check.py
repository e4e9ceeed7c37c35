"""``rerank-serve check`` reads the model cards that are on this machine."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from serve_app.cli.check import check
from testkit.service import model, serve_config


def checked(folder: Path, card: Path) -> Result:
    config = serve_config([model("embedded", "embedded", card=str(card))], {"num_replicas": 1})
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return CliRunner().invoke(check, [str(path)])


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("license: mit\nlanguages: [en]", 0, "which states: languages, license"),
        ("licence: mit", 1, "licence is not a known field"),
        (None, 0, "is not on this machine and was not checked"),
    ],
)
def test_a_card_is_checked(tmp_path: Path, text: str | None, code: int, says: str) -> None:
    card = tmp_path / "card.yaml"
    if text is not None:
        card.write_text(text, encoding="utf-8")

    result = checked(tmp_path, card)

    assert (result.exit_code, says in result.output) == (code, True), result.output
