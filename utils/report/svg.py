"""Small plots as SVG without a style attribute: colours are classes of the page's style sheet.

For ``utils.report.html`` pages, whose policy refuses the inline styles that plotting libraries
write.
Lines, points, bars, linear and logarithmic axes; not for anything fancier, nor for files alone.

Classes: ``series-a``, ``series-b``, ``series-c`` are data, ``reference`` is what is expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from utils.report.html import Html, join, number, tag

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
        return [*found]


def nice_ticks(low: float, high: float) -> list[float]:
    """About five multiples of 1, 2 or 5 times a power of ten, inside [low, high]."""
    rough = (high - low) / _NUM_TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


@dataclass(frozen=True)
class Series:
    """Values to draw; pairs with a missing value, or outside the axes, are left out."""

    label: str
    x: Sequence[float | None]
    y: Sequence[float | None]
    colour: str
    kind: Literal["line", "points", "dots", "crosses"] = "line"


def plot(alt: str, x_axis: Axis, y_axis: Axis, series: Sequence[Series]) -> Html:
    """Axes, grid, the series in order, and a legend below.

    Args:
        alt: what the plot shows, for people who do not see it.
        x_axis: horizontal.
        y_axis: vertical.
        series: ``line``; ``points`` (a line with a mark on every value); ``dots`` (many values);
            ``crosses`` (values of somebody else).
    """
    drawn = [_draw(part, x_axis, y_axis) for part in series]
    picture = tag(
        "svg",
        _axes(x_axis, y_axis),
        *drawn,
        viewBox=f"0 0 {_WIDTH:g} {_HEIGHT:g}",
        role="img",
        aria_label=alt,
        class_="plot",
    )
    return join(picture, _legend(series))


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
    line = tag("path", d=path, class_=f"line {series.colour}")
    if series.kind == "line":
        return line
    return join(line, *(_mark(x, y, series.colour) for x, y in places))


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
        picture = tag("svg", swatch, viewBox="0 0 28 14", class_="swatch", aria_hidden="true")
        items.append(tag("li", picture, part.label))
    return tag("ul", *items, class_="legend") if items else None


def bars(alt: str, labels: Sequence[str], values: Sequence[float | None], colour: str) -> Html:
    """Horizontal bars from 0 with their labels above and their values behind."""
    known = [abs(v) for v in values if v is not None and math.isfinite(v)]
    top = max(known, default=0.0) or 1.0
    room, line = _WIDTH - 70.0, 38.0
    parts = []
    for row, (label, value) in enumerate(zip(labels, values, strict=True)):
        y = row * line
        is_known = value is not None and math.isfinite(value)
        length = max(abs(value or 0.0) / top * room, 1.0) if is_known else 0.0
        parts.append(tag("text", label, x=0, y=y + 13, class_="bar-label"))
        parts.append(
            tag("rect", x=0, y=y + 18, width=round(length, 1), height=13, class_=f"bar {colour}")
        )
        parts.append(tag("text", number(value, 3), x=round(length + 6, 1), y=y + 29))
    box = f"0 0 {_WIDTH:g} {len(labels) * line:g}"
    return tag("svg", *parts, viewBox=box, role="img", aria_label=alt, class_="plot")
