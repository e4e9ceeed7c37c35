"""A hook of MkDocs: links to files outside of ``docs`` become plain text on the site."""

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!docs/)[^)]*\)")
_DEPTH = re.compile(r"\.\./")


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Replace links that lead above ``docs``, which only the repository can resolve."""
    depth = page.file.src_uri.count("/")

    def text_only(link: re.Match[str]) -> str:
        leads_outside = len(_DEPTH.findall(link[0])) > depth
        return link[1] if leads_outside else link[0]

    return _OUTSIDE.sub(text_only, markdown)
