"""Self-contained HTML pages: markup escaped by construction, and a shell that runs no guest.

For any task's report. Knows no figure of any task, and draws no plot (``utils.report.svg`` does).

Text becomes markup in one place, :func:`tag`, which escapes it; data reaches the page's script as
JSON that cannot end its block. The page forbids itself everything but pictures in ``data:`` links
and the very style sheet and scripts it was written with, by hash, so neither a file name nor a
later edit can run anything, and nothing is ever fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

_VOID = frozenset({"br", "hr", "img", "input", "link", "meta", "wbr"})
# surrogates that no encoding has, and control characters that HTML forbids
_UNPRINTABLE = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


@dataclass(frozen=True)
class Html:
    """Markup, as opposed to text that still has to be escaped."""

    markup: str


Child: TypeAlias = Html | str | None
Attribute: TypeAlias = str | float | bool | None


def escape(text: str) -> str:
    """Text as it may stand in an element or a quoted attribute; what cannot be shown is U+FFFD."""
    return html.escape(_UNPRINTABLE.sub("\ufffd", text), quote=True)


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element; strings among the children are text and are escaped.

    Args:
        name: of the element.
        children: what is inside; None is left out.
        attributes: ``_`` stands for ``-``, a trailing one is dropped (``class_``); None and False
            are left out, True is an attribute without a value.

    Raises:
        ValueError: an attribute that the page's policy forbids (``style``, ``on…``).
    """
    head = [name]
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(attribute) or attribute == "style" or attribute.startswith("on"):
            raise ValueError(f"attribute {attribute!r} of <{name}> is not allowed in a report")
        if value is True:
            head.append(attribute)
        elif value is not None and value is not False:
            text = f"{value:g}" if isinstance(value, float) else str(value)
            head.append(f'{attribute}="{escape(text)}"')
    opening = f"<{' '.join(head)}>"
    return Html(opening if name in _VOID else f"{opening}{join(*children).markup}</{name}>")


def join(*children: Child) -> Html:
    """The children one after the other; strings are escaped, None is left out."""
    parts = (part if isinstance(part, Html) else Html(escape(part or "")) for part in children)
    return Html("".join(part.markup for part in parts))


def number(value: object, digits: int = 4) -> str:
    """A figure as people read it; a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "–"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e6):
        return f"{int(value):,}".replace(",", "\u202f").replace("-", "−")
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


@dataclass(frozen=True)
class Rows:
    """Rows of a table under a common heading (none: empty); the first cell of a row is its name."""

    heading: str
    rows: Sequence[Sequence[Child]]


def table(caption: str, head: Sequence[str], groups: Sequence[Rows]) -> Html:
    """A table that scrolls on its own where it is too wide, with scoped headers."""
    columns = [tag("th", name, scope="col") for name in head]
    bodies = []
    for group in groups:
        lines = []
        if group.heading:
            wide = tag("th", group.heading, scope="rowgroup", colspan=len(head))
            lines.append(tag("tr", wide, class_="group"))
        for first, *rest in group.rows:
            cells = [tag("td", cell) for cell in rest]
            lines.append(tag("tr", tag("th", first, scope="row"), *cells))
        bodies.append(tag("tbody", *lines))
    whole = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", *columns)), *bodies
    )  # a region with a tab stop: the keyboard can scroll it
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def figure(caption: str, picture: Html, note: str = "", data: Html | None = None) -> Html:
    """A picture with its caption, a sentence on how to read it, and its numbers to unfold."""
    unfold = None
    if data is not None:
        unfold = tag("details", tag("summary", f"Numbers: {caption}"), data)
    heading = tag("h3", caption)
    text = tag("p", note, class_="note") if note else None
    return tag("figure", tag("figcaption", heading, text), picture, unfold, class_="plot")


@dataclass(frozen=True)
class Section:
    """A part of the page that the navigation leads to; ``name`` is its anchor."""

    name: str
    title: str
    body: Html


def json_block(name: str, value: Any) -> Html:
    """Data for the page's script, in an element with this id.

    ASCII only, with ``<``, ``>`` and ``&`` as escapes: no content can end the block, open a comment
    or break a line of script (U+2028). Numbers that JSON lacks become null, what no encoding has
    U+FFFD.
    """
    text = json.dumps(_portable(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{escape(name)}">{text}</script>')


def _portable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _portable(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(part) for part in value]
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: its heading and the window's name.
        lead: what stands under the heading.
        sections: in order.
        styles: style sheets beyond the shell's own.
        scripts: run at the end of the body, in order.
        data: id → what the scripts find in the element of this id.
    """

    title: str
    lead: Html
    sections: Sequence[Section]
    styles: Sequence[str] = ()
    scripts: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)

    def render(self) -> str:
        """The content of the file.

        Raises:
            ValueError: a script or style sheet that would end its own element.
        """
        styles = [shell_style(), *self.styles]
        head = [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy(styles, self.scripts)),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", self.title),
            *(_raw_element("style", text) for text in styles),
        ]
        body = [
            tag("a", "Skip to the content", href="#content", class_="skip"),
            tag("header", tag("h1", self.title), self.lead),
            self._navigation(),
            tag("main", *map(_section, self.sections), id="content", tabindex="-1"),
            *(json_block(name, value) for name, value in self.data.items()),
            *(_raw_element("script", text) for text in self.scripts),
        ]
        document = tag("html", tag("head", *head), tag("body", *body), lang="en")
        return f"<!DOCTYPE html>\n{document.markup}\n"

    def _navigation(self) -> Html:
        links = [tag("li", tag("a", part.title, href=f"#{part.name}")) for part in self.sections]
        return tag("nav", tag("ul", *links), aria_label="Sections")


def _section(part: Section) -> Html:
    heading = tag("h2", part.title, id=f"{part.name}-title")
    return tag("section", heading, part.body, id=part.name, aria_labelledby=f"{part.name}-title")


def policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """The content security policy of a page with these inline style sheets and scripts.

    ``trusted-types 'none'`` on top refuses every way of turning text into markup from a script.
    """
    return "; ".join(
        [
            "default-src 'none'",
            "img-src data:",
            f"script-src {_hashes(scripts)}",
            f"style-src {_hashes(styles)}",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _hashes(texts: Sequence[str]) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    hashes = [f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests]
    return " ".join(hashes) or "'none'"


def _raw_element(name: str, text: str) -> Html:
    if f"</{name}" in text.lower() or "<!--" in text or "\r" in text:
        raise ValueError(f"a <{name}> may hold neither its own end, nor a comment, nor CR")
    return Html(f"<{name}>{text}</{name}>")


def shell_style() -> str:
    """The style sheet that every page has: layout, tables, plots, light and dark."""
    return Path(__file__).with_name("html_assets").joinpath("page.css").read_text("utf-8")
