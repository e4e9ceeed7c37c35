"""Promote or abort a canary in the text of a Serve config file.

All other lines, comments and anchors stay; see `docs/decisions/0021`.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from serve_app.deployments.serve_config import ConfigError, gateway_options, gateways_in
from serve_app.settings.models import ModelSettings

BY_HAND = (
    "The layout of the file is too unusual, for example because an alias refers to a line that "
    "would be removed. Edit the file yourself."
)

ALIAS = "alias"

Entry = tuple[yaml.Node, yaml.Node]
"""A key and its value."""

Change = tuple[int, int, str]
"""Start and end of a part of the text, and its replacement."""


@dataclass(frozen=True, slots=True)
class Edited:
    """A changed config file."""

    text: str
    content: dict[str, Any]
    unused: str
    """The application that no model uses any more."""


def promoted(text: str, model_id: str) -> Edited:
    """Make the canary of a model its live revision. Raises: ConfigError."""
    content = yaml.safe_load(text)
    model, place = _find(content, model_id)
    unused = ModelSettings(**model).application_name
    canary = model.pop("canary")
    model |= {name: canary[name] for name in ("application", "checkpoint")}

    entries, canary_entries = _entries(text, place), _entries(text, [*place, "canary"])
    changes = [
        _replacement(text, entries["checkpoint"], canary_entries["checkpoint"]),
        *_kept_anchor(text, entries["checkpoint"]),
    ]
    if "application" in entries:
        changes.append(_replacement(text, entries["application"], canary_entries["application"]))
        changes.append(_removal(text, place, "canary"))
    else:
        changes.append(_replacement(text, entries["canary"], canary_entries["application"]))
    return Edited(_changed(text, changes, content), content, unused)


def aborted(text: str, model_id: str) -> Edited:
    """Remove the canary of a model. Raises: ConfigError."""
    content = yaml.safe_load(text)
    model, place = _find(content, model_id)
    unused = model.pop("canary")["application"]
    checkpoint = _entries(text, [*place, "canary"])["checkpoint"]
    changes = [_removal(text, place, "canary"), *_kept_anchor(text, checkpoint)]
    return Edited(_changed(text, changes, content), content, unused)


def _find(content: Mapping[str, Any], model_id: str) -> tuple[dict[str, Any], list[str | int]]:
    """Return the model's settings, and their place in ``content``."""
    gateways = gateways_in(content)
    options = gateway_options(gateways)
    models = (options.get("user_config") or {}).get("models") or []
    for index, model in enumerate(models):
        if model["id"] != model_id:
            continue
        if not model.get("canary"):
            raise ConfigError(f"The model '{model_id}' has no canary.")
        application = content["applications"].index(gateways)
        deployment = gateways["deployments"].index(options)
        place = ["applications", application, "deployments", deployment, "user_config", "models"]
        return model, [*place, index]
    raise ConfigError(f"There is no model '{model_id}'.")


class _Places(yaml.SafeLoader):
    """Composes each alias as a node of its own."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if not self.check_event(yaml.AliasEvent):
            return super().compose_node(parent, index)
        event = self.get_event()  # type: ignore[no-untyped-call]  # untyped in the stubs
        return yaml.ScalarNode(ALIAS, event.anchor, event.start_mark, event.end_mark)


def _mapping(text: str, place: Sequence[str | int]) -> yaml.MappingNode:
    node = yaml.compose(text, Loader=_Places)
    for step in place:
        if isinstance(node, yaml.MappingNode):
            node = next((value for key, value in node.value if key.value == step), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(BY_HAND)
    return node


def _entries(text: str, place: Sequence[str | int]) -> dict[str, Entry]:
    return {key.value: (key, value) for key, value in _mapping(text, place).value}


def _end(node: yaml.Node) -> int:
    """Return where a node ends, without the comments that follow it."""
    if isinstance(node, yaml.CollectionNode) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _replacement(text: str, old: Entry, new: Entry) -> Change:
    """The lines of ``new`` are indented like ``old``."""
    begin = new[0].start_mark
    first, *more = text[begin.index : _end(new[1])].split("\n")
    shift = old[0].start_mark.column - begin.column
    lines = [first, *(_indented(line, shift) for line in more)]
    return old[0].start_mark.index, _end(old[1]), "\n".join(lines)


def _kept_anchor(text: str, removed: Entry) -> Iterator[Change]:
    """Move the anchor of a removed entry to the first entry with an alias of it."""
    anchor = re.match(r"&(\S+)", text[removed[1].start_mark.index :])
    if anchor is None:
        return
    for entry in _all_entries(yaml.compose(text, Loader=_Places)):
        if (entry[1].tag, entry[1].value) == (ALIAS, anchor[1]):
            yield _replacement(text, entry, removed)
            return


def _all_entries(node: yaml.Node | None) -> Iterator[Entry]:
    """Yield all entries in the order of the text."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield key, value
            yield from _all_entries(value)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            yield from _all_entries(each)


def _indented(line: str, shift: int) -> str:
    indent = len(line) - len(line.lstrip(" "))
    return " " * max(0, indent + shift) + line[indent:] if line.strip() else line


def _removal(text: str, place: Sequence[str | int], name: str) -> Change:
    model = _mapping(text, place)
    entries: list[Entry] = model.value
    at = next(at for at, (key, _) in enumerate(entries) if key.value == name)
    begin, end = entries[at][0].start_mark.index, _end(entries[at][1])
    line_begin = text.rfind("\n", 0, begin) + 1
    if not model.flow_style and not text[line_begin:begin].strip():
        line_end = text.find("\n", end)
        return line_begin, len(text) if line_end < 0 else line_end + 1, ""
    if at + 1 < len(entries):
        return begin, entries[at + 1][0].start_mark.index, ""
    return _end(entries[at - 1][1]), end, ""


def _changed(text: str, changes: Sequence[Change], content: Mapping[str, Any]) -> str:
    """Raises: ConfigError, if the changed text does not parse to ``content``."""
    for begin, end, new in sorted(changes, reverse=True):
        text = text[:begin] + new + text[end:]
    try:
        same = yaml.safe_load(text) == content
    except yaml.YAMLError:
        same = False
    if not same:
        raise ConfigError(BY_HAND)
    return text
