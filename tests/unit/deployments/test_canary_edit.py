"""Promoting and aborting a canary changes only its entries in the config file."""

from pathlib import Path

import pytest
import yaml

from serve_app.deployments.canary_edit import aborted, promoted
from serve_app.deployments.serve_config import ConfigError

ROOT = Path(__file__).parents[3]
LOCAL = (ROOT / "cluster/local.yaml").read_text()

CONFIG = """\
# The service.
applications:
  - name: embedded
    import_path: serve_app.app:scorer
    args:
      checkpoint: &old  # since May
        source: embedded
  - name: embedded-2
    import_path: serve_app.app:scorer
    args: {checkpoint: &new {source: embedded, pair_tokens_max: 64}}

  - name: rerank  # the gateways
    import_path: serve_app.app:gateways
    deployments:
      - name: gateway
        user_config:
          models:
            - id: another
              checkpoint: *old  # the same
              application: other
            # The default model.
            - id: embedded
              checkpoint: *old  # a comment after an alias
{canary}
              # Agreed with sales.
              price_micro_dollars_per_document: 11  # cheap
          documents_per_request_max: 3
"""

CANARIES = {
    "block": """\
              canary:  # on trial
                application: embedded-2
                checkpoint: *new  # the new one
                share: 0.05  # small""",
    "flow": """\
              canary: {application: embedded-2, checkpoint: *new, share: 0.05}  # on trial""",
    "nested": """\
              canary:
                share: 0.05
                checkpoint:
                  source: embedded

                  # Shorter.
                  pair_tokens_max: 64
                application: embedded-2""",
    "flow over lines": """\
              canary: {
                application: embedded-2,
                checkpoint: *new,
              }  # on trial""",
}


def config(canary: str) -> str:
    return CONFIG.replace("{canary}", canary)


def changed_lines(old: str, new: str) -> tuple[list[str], list[str]]:
    """Return the lines that only one of both texts has."""
    before, after = old.splitlines(), new.splitlines()
    gone = [line.strip() for line in before if line not in after]
    return gone, [line.strip() for line in after if line not in before]


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
def test_an_aborted_canary_leaves_the_file_as_it_was_without_it(canary: str) -> None:
    edited = aborted(config(canary), "embedded")

    assert edited.text == CONFIG.replace("{canary}\n", "")
    assert edited.unused == "embedded-2"


@pytest.mark.parametrize("canary", CANARIES.values(), ids=CANARIES)
def test_a_promoted_canary_takes_the_place_of_the_live_revision(canary: str) -> None:
    edited = promoted(config(canary), "embedded")

    model = yaml.safe_load(edited.text)["applications"][2]["deployments"][0]["user_config"][
        "models"
    ][1]
    assert model == {
        "id": "embedded",
        "checkpoint": {"source": "embedded", "pair_tokens_max": 64},
        "application": "embedded-2",
        "price_micro_dollars_per_document": 11,
    }
    assert edited.content == yaml.safe_load(edited.text)
    assert edited.unused == "embedded"
    for comment in ("# since May", "# the same", "# The default model.", "# Agreed", "# cheap"):
        assert comment in edited.text


def test_promotion_changes_three_lines() -> None:
    old = config(CANARIES["flow"])

    gone, new = changed_lines(old, promoted(old, "embedded").text)

    assert gone == [
        "checkpoint: *old  # a comment after an alias",
        "canary: {application: embedded-2, checkpoint: *new, share: 0.05}  # on trial",
    ]
    assert new == [
        "checkpoint: *new  # a comment after an alias",
        "application: embedded-2  # on trial",
    ]


def test_a_named_application_is_replaced() -> None:
    old = config("              application: embedded\n" + CANARIES["nested"])

    edited = promoted(old, "embedded")

    assert edited.unused == "embedded"
    assert "application: embedded-2\n              # Agreed" in edited.text
    assert "                # Shorter.\n                pair_tokens_max: 64  # a" in edited.text


@pytest.mark.parametrize(
    "model",
    [
        "{id: embedded, checkpoint: {source: embedded}, canary: CANARY}",
        "{id: embedded, canary: CANARY, checkpoint: {source: embedded}}",
        "{canary: CANARY, id: embedded, checkpoint: {source: embedded}}",
        "{id: embedded,\n checkpoint: {source: embedded},\n canary: CANARY}",
        "canary: CANARY\n              id: embedded\n              checkpoint: {source: embedded}",
    ],
)
def test_a_model_may_be_in_flow_style_or_begin_with_its_canary(model: str) -> None:
    canary = "{application: embedded-2, checkpoint: {source: embedded, pair_tokens_max: 64}}"
    old = LOCAL.replace(
        "id: embedded\n              checkpoint: *embedded", model.replace("CANARY", canary)
    )

    for edit in (promoted, aborted):
        edited = edit(old, "embedded")
        assert "canary" not in edited.text
        assert yaml.safe_load(edited.text) == edited.content


FIRST = """\
applications:
  - name: rerank
    deployments:
      - name: gateway
        user_config:
          models:
            - id: embedded
              checkpoint: &old
                source: embedded  # the old one
              canary:
                application: embedded-2
                checkpoint: &new  # the new one
                  source: embedded
                  pair_tokens_max: 64
  - name: embedded
    args:
      checkpoint: *old
  - name: embedded-2
    args:
      checkpoint: *new  # the same
"""
"""A file that defines its anchors in the settings of the gateways."""


def test_the_anchor_of_an_aborted_canary_moves_to_its_application() -> None:
    edited = aborted(FIRST, "embedded")

    assert edited.text.endswith("""\
                source: embedded  # the old one
  - name: embedded
    args:
      checkpoint: *old
  - name: embedded-2
    args:
      checkpoint: &new  # the new one
        source: embedded
        pair_tokens_max: 64  # the same
""")


def test_the_anchor_of_a_replaced_revision_moves_to_its_application() -> None:
    edited = promoted(FIRST, "embedded")

    assert edited.text.endswith("""\
            - id: embedded
              checkpoint: &new  # the new one
                source: embedded
                pair_tokens_max: 64  # the old one
              application: embedded-2
  - name: embedded
    args:
      checkpoint: &old
        source: embedded
  - name: embedded-2
    args:
      checkpoint: *new  # the same
""")


@pytest.mark.parametrize(
    ("text", "model", "message"),
    [
        (LOCAL, "embedded", "The model 'embedded' has no canary"),
        (LOCAL, "other", "There is no model 'other'"),
        (
            config(CANARIES["flow"].replace("*new", "&newer {source: x}"))
            + "          x: *newer\n",
            "embedded",
            "Edit the file yourself",
        ),
    ],
    ids=["no canary", "no model", "anchor in the removed lines"],
)
def test_what_cannot_be_edited_is_refused(text: str, model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        aborted(text, model)
