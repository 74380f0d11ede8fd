"""Self-contained HTML pages: markup escaped by construction, and plots that need no style.

Text becomes markup in one place, `tag`, which escapes it; data reaches the page's script as
JSON that cannot end its block. The page forbids itself everything but pictures in `data:` links
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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

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

    Children and attributes that are None are left out. In the name of an attribute `_` stands for
    `-`, a trailing one is dropped (`class_`); False is left out, True has no value. One that the
    page's policy forbids (`style`, `on…`) is a ValueError.
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
    whole = tag("table", tag("caption", caption), tag("thead", tag("tr", *columns)), *bodies)
    # a region with a tab stop: the keyboard can scroll it
    return tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label=caption)


def figure(caption: str, picture: Html, note: str = "", data: Html | None = None) -> Html:
    """A picture with its caption, a sentence on how to read it, and its numbers to unfold."""
    unfold = tag("details", tag("summary", f"Numbers: {caption}"), data) if data else None
    text = tag("p", note, class_="note") if note else None
    heading = tag("figcaption", tag("h3", caption), text)
    return tag("figure", heading, picture, unfold, class_="plot")


@dataclass(frozen=True)
class Section:
    """A part of the page that the navigation leads to; `name` is its anchor."""

    name: str
    title: str
    body: Html


def json_block(name: str, value: object) -> Html:
    """Data for the page's script, in an element with this id.

    ASCII only, with `<`, `>` and `&` as escapes: no content can end the block, open a comment
    or break a line of script (U+2028). Numbers that JSON lacks become null, what no encoding has
    U+FFFD.
    """
    text = json.dumps(_portable(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Html(f'<script type="application/json" id="{escape(name)}">{text}</script>')


def _portable(value: object) -> object:
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
    data: Mapping[str, object] = field(default_factory=dict)

    def render(self) -> str:
        """The content of the file; ValueError for a script or style that would end its element."""
        styles = [shell_style(), *self.styles]
        head = [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy(styles, self.scripts)),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", self.title),
            *(_raw_element("style", text) for text in styles),
        ]
        links = [tag("li", tag("a", part.title, href=f"#{part.name}")) for part in self.sections]
        body = [
            tag("a", "Skip to the content", href="#content", class_="skip"),
            tag("header", tag("h1", self.title), self.lead),
            tag("nav", tag("ul", *links), aria_label="Sections"),
            tag("main", *map(_section, self.sections), id="content", tabindex="-1"),
            *(json_block(name, value) for name, value in self.data.items()),
            *(_raw_element("script", text) for text in self.scripts),
        ]
        document = tag("html", tag("head", *head), tag("body", *body), lang="en")
        return f"<!DOCTYPE html>\n{document.markup}\n"


def _section(part: Section) -> Html:
    heading = tag("h2", part.title, id=f"{part.name}-title")
    return tag("section", heading, part.body, id=part.name, aria_labelledby=f"{part.name}-title")


def policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """The content security policy of a page with these inline style sheets and scripts.

    `trusted-types 'none'` on top refuses every way of turning text into markup from a script.
    """
    return (
        f"default-src 'none'; img-src data:; script-src {_hashes(scripts)}; "
        f"style-src {_hashes(styles)}; base-uri 'none'; form-action 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
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


_WIDTH, _HEIGHT = 360.0, 280.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 60.0, 12.0, 10.0, 48.0
_NUM_TICKS = 5


@dataclass(frozen=True)
class Axis:
    """A label (with its unit) and the range that is shown; both ends positive if logarithmic."""

    label: str
    low: float
    high: float
    is_log: bool = False

    @classmethod
    def over(cls, label: str, values: Iterable[float | None], *, is_log: bool = False) -> Axis:
        """A range that holds all finite values: from 0, or between powers if logarithmic."""
        known = [v for v in values if v is not None and math.isfinite(v) and (v > 0 or not is_log)]
        if is_log:
            low, high = min(known, default=1.0), max(known, default=1.0)
            return cls(label, low / 1.25, high * 1.25, True)
        low, high = min(0.0, *known, 0.0), max(0.0, *known, 0.0)
        if high == low:
            high = low + 1.0
        return cls(label, low * 1.05, high * 1.05)

    def share(self, value: float) -> float:
        """Where on the axis a value lies, from 0 to 1."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def can_show(self, value: float | None) -> bool:
        """Whether a value is there and inside the range, up to rounding."""
        if value is None or not math.isfinite(value) or (self.is_log and value <= 0):
            return False
        return -1e-9 <= self.share(value) <= 1 + 1e-9

    def ticks(self) -> list[float]:
        """Round numbers inside the range."""
        if not self.is_log:
            return nice_ticks(self.low, self.high)
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
            found = [d * 10.0**k for k in decades for d in digits if self.can_show(d * 10.0**k)]
            if len(found) >= 3:
                return found[:: math.ceil(len(found) / 7)]
        return found


def nice_ticks(low: float, high: float) -> list[float]:
    """About five multiples of 1, 2 or 5 times a power of ten, inside [low, high]."""
    rough = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


@dataclass(frozen=True)
class Series:
    """Values to draw; pairs with a missing value, or outside the axes, are left out.

    Attributes:
        intervals: of each value of y, as (low, high) or None; empty: none are drawn.
    """

    label: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    colour: str
    kind: Literal["line", "points", "dots", "crosses"] = "line"
    intervals: Sequence[Sequence[float] | None] = ()


def plot(alt: str, x_axis: Axis, y_axis: Axis, series: Sequence[Series]) -> Html:
    """Axes, grid, the series in order, and a legend below.

    `alt` says what the plot shows, for people who do not see it. Series are of a kind: `line`;
    `points` (a line with a mark on every value); `dots` (many values); `crosses` (values of
    somebody else).
    """
    parts = [_axes(x_axis, y_axis), *(_draw(part, x_axis, y_axis) for part in series)]
    return join(_picture(alt, parts, _HEIGHT), _legend(series))


def _picture(alt: str, parts: Iterable[Html], height: float) -> Html:
    box = f"0 0 {_WIDTH:g} {height:g}"
    return tag("svg", *parts, viewBox=box, role="img", aria_label=alt, class_="plot")


def _x(share: float) -> float:
    return round(_LEFT + share * (_WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(_HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM), 1)


def _draw(series: Series, x_axis: Axis, y_axis: Axis) -> Html:
    places = [
        (_x(x_axis.share(x)), _y(y_axis.share(y)))
        for x, y in zip(series.x, series.y, strict=True)
        if x is not None and y is not None and x_axis.can_show(x) and y_axis.can_show(y)
    ]
    if series.kind == "dots":
        # one path of lines without length, round at their ends: bytes stay few
        path = "".join(f"M{x:g} {y:g}h0" for x, y in places)
        return tag("path", d=path or "M0 0", class_=f"dots {series.colour}")
    if series.kind == "crosses":
        return _crosses(places, series.colour)
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in places) if places else "M0 0"
    path += "".join(_intervals(series, x_axis, y_axis))
    line = tag("path", d=path, class_=f"line {series.colour}")
    if series.kind == "line":
        return line
    return join(line, *(_mark(x, y, series.colour) for x, y in places))


def _intervals(series: Series, x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    for x, interval in zip(series.x, series.intervals, strict=False):
        if x is not None and interval is not None and x_axis.can_show(x):
            low, high = (min(max(y_axis.share(end), 0.0), 1.0) for end in interval)
            yield f"M{_x(x_axis.share(x)):g} {_y(low):g}V{_y(high):g}"


def _crosses(places: Sequence[tuple[float, float]], colour: str) -> Html:
    path = "".join(f"M{x - 4:g} {y - 4:g}l8 8m0 -8l-8 8" for x, y in places)
    return tag("path", d=path or "M0 0", class_=f"cross {colour}")


def _mark(x: float, y: float, colour: str) -> Html:
    if colour == "series-b":  # told apart without colour
        return tag("path", d=f"M{x:g} {y - 4:g}l4 4l-4 4l-4 -4z", class_="mark series-b")
    return tag("circle", cx=x, cy=y, r=3, class_=f"mark {colour}")


def _axes(x_axis: Axis, y_axis: Axis) -> Html:
    parts: list[Html] = []
    bottom, left = _y(0), _x(0)
    for value in x_axis.ticks():
        x = _x(x_axis.share(value))
        parts.append(tag("path", d=f"M{x:g} {bottom:g}V{_y(1):g}", class_="grid"))
        parts.append(tag("text", number(value), x=x, y=bottom + 17, text_anchor="middle"))
    for value in y_axis.ticks():
        y = _y(y_axis.share(value))
        parts.append(tag("path", d=f"M{left:g} {y:g}H{_x(1):g}", class_="grid"))
        parts.append(tag("text", number(value), x=left - 7, y=y + 4, text_anchor="end"))
    parts.append(tag("path", d=f"M{left:g} {_y(1):g}V{bottom:g}H{_x(1):g}", class_="axis"))
    middle_x, middle_y = _x(0.5), _y(0.5)
    parts.append(tag("text", x_axis.label, x=middle_x, y=_HEIGHT - 8, text_anchor="middle"))
    turned = f"rotate(-90 14 {middle_y:g})"
    parts.append(
        tag("text", y_axis.label, x=14, y=middle_y, text_anchor="middle", transform=turned)
    )
    return tag("g", *parts, aria_hidden="true")


def _legend(series: Sequence[Series]) -> Html | None:
    items = []
    for part in series:
        swatch: Html = tag("path", d="M2 7H26", class_=f"line {part.colour}")
        if part.kind == "points":
            swatch = join(swatch, _mark(14, 7, part.colour))
        elif part.kind == "dots":
            swatch = tag("path", d="M6 9h0M13 5h0M21 8h0", class_=f"dots large {part.colour}")
        elif part.kind == "crosses":
            swatch = _crosses([(14, 7)], part.colour)
        items.append(tag("li", _swatch(swatch), part.label))
    return tag("ul", *items, class_="legend") if items else None


def key(colour: str) -> Html:
    """A line in the colour of a series, for words about it that stand beside the plot."""
    return _swatch(tag("path", d="M2 7H26", class_=f"line {colour}"))


def _swatch(picture: Html) -> Html:
    return tag("svg", picture, viewBox="0 0 28 14", class_="swatch", aria_hidden="true")


def bars(alt: str, labels: Sequence[str], values: Sequence[float | None], colour: str) -> Html:
    """Horizontal bars from 0 with their labels above and their values behind.

    A value below 0 has no bar.
    """
    known = [v for v in values if v is not None and math.isfinite(v)]
    top = max(*known, 0.0, 0.0) or 1.0
    room, line = _WIDTH - 70.0, 38.0
    parts = []
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        y = row * line
        is_known = value is not None and math.isfinite(value)
        length = max((value or 0.0) / top * room, 1.0) if is_known else 0.0
        parts.append(tag("text", label, x=0, y=y + 13, class_="bar-label"))
        parts.append(
            tag("rect", x=0, y=y + 18, width=round(length, 1), height=13, class_=f"bar {colour}")
        )
        parts.append(tag("text", number(value, 3), x=round(length + 6, 1), y=y + 29))
    return _picture(alt, parts, len(labels) * line)
