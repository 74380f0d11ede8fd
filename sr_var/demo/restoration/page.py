"""The page of `make demo-restore`: pictures, std maps, intervals and coverage of three tasks."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from sr_var.demo.restoration.commands import Preset
from sr_var.demo.restoration.results import Z_90, Found, Shown, percent, sentence
from sr_var.results.folder import to_grey_bytes
from sr_var.results.maps import coloured, colours, top_of_scale
from sr_var.results.moments import Array
from utils.files.atomic import write_text_atomic
from utils.report.html import (
    Axis,
    Child,
    Html,
    Page,
    Rows,
    Section,
    Series,
    figure,
    join,
    number,
    plot,
    table,
    tag,
)
from utils.runs.scripts import Times

_LEVEL = 0.9
# pixels of a row whose intervals are drawn, and its channel
_NUM_IN_ROW, _GREEN = 48, 1
# the share of errors that the scale of colours holds
_TOP_OF_ERRORS = 0.97
# colours of the map of values outside: none of the channels, to all
_INSIDE, _OUTSIDE = np.array([244.0, 242.0, 238.0]), np.array([179.0, 40.0, 13.0])
_HEAD = (
    "",
    "PSNR of the input, dB",
    "of the mean, dB",
    "inside of the nets' own 90 % intervals",
    "inside of calibrated ones",
    "times as wide",
    "seconds",
)
_CAPTIONS = (
    "true photograph",
    "input: what the nets see",
    "mean: what they make of it",
    "error of the mean",
    "std: how wrong they say it is",
    "lower end of the calibrated 90 % interval",
    "upper end",
    "red: the true value lies outside",
)


def write_report(preset: Preset, found: Sequence[Found], times: Times) -> str:
    """Write `report.html`; return its path."""
    path = os.path.join(preset.report_dir, "report.html")
    os.makedirs(preset.report_dir, exist_ok=True)
    write_text_atomic(path, report_page(preset, found, times).render())
    return path


def report_page(preset: Preset, found: Sequence[Found], times: Times) -> Page:
    """The page, before it is text."""
    minutes = sum(taken.seconds for taken in times.values()) / 60
    split = preset.split
    lead = join(
        tag(
            "p",
            f"Two small networks a task learned from {len(split.training)} photographs: one says "
            "what the true value of a pixel is on average, given what is seen, the other how far "
            f"off that may be. Here are {len(split.held_out)} photographs that trained none of "
            f"them. All of it took {minutes:.1f} minutes.",
            class_="subtitle",
        ),
        tag("div", *(tag("p", sentence(one)) for one in found), class_="verdict"),
    )
    return Page(
        title="Restored, with how wrong it may be",
        lead=lead,
        sections=[
            Section("figures", "All three", _figures(found)),
            *(Section(one.task.name, one.task.title, _section(one)) for one in found),
            Section("how", "How it was judged", _how(preset, found)),
        ],
        styles=[Path(__file__).with_name("page.css").read_text("utf-8")],
    )


def _figures(found: Sequence[Found]) -> Html:
    rows: list[list[Child]] = []
    for one in found:
        cells: list[Child] = [
            f"{one.mean('psnr_input'):.1f}",
            f"{one.mean('psnr_mean'):.1f}",
            _with_interval(one, "raw"),
            _with_interval(one, "calibrated"),
            f"{one.mean('width') / one.mean('raw_width'):.2f}",
            "–" if one.seconds is None else f"{one.seconds:.0f}",
        ]
        rows.append([f"{one.task.title} ({one.task.degradation})", *cells])
    note = (
        "In small print 95 % intervals over photographs. PSNR is of whole photographs; of "
        "inpainting the shares are of hidden pixels alone: of seen ones nothing is to be predicted."
    )
    return join(table("What came of it", _HEAD, [Rows("", rows)]), tag("p", note, class_="note"))


def _with_interval(found: Found, key: str) -> Html:
    low, high = found.interval(key)
    return join(percent(found.mean(key)), tag("small", f"{100 * low:.1f} to {100 * high:.1f}"))


def _section(found: Found) -> Html:
    has_hidden = found.shown[0].data.hidden is not None
    maps = [_maps(one) for one in found.shown]
    errors, stds = (np.stack(values) for values in zip(*maps, strict=True))
    top = max(top_of_scale(stds), float(np.quantile(errors, _TOP_OF_ERRORS)))
    strips = [_strip(one, part, top) for one, part in zip(found.shown, maps, strict=True)]
    hidden = (
        f" With the seen pixels counted, too, it would be {percent(found.mean('of_all'))}."
        if has_hidden
        else ""
    )
    which = "hidden" if has_hidden else "real"
    said = (
        f"{found.task.what} Of the {which} values {percent(found.mean('raw'))} lie inside of mean "
        f"± {Z_90:.3f} std, and {percent(found.mean('calibrated'))} inside of the calibrated "
        f"interval, mean ± λ std.{hidden}"
    )
    plots = tag("div", _row_plot(found.shown[0]), _photograph_plot(found), class_="plots")
    return join(tag("p", said), _tiles(found), _ramp(top), *strips, plots)


def _tiles(found: Found) -> Html:
    low, high = min(found.factors), max(found.factors)
    tiles = [
        ("inside of the nets' own 90 % intervals", percent(found.mean("raw")), ""),
        ("inside of calibrated ones", percent(found.mean("calibrated")), "90 % are promised"),
        (
            "PSNR, input → mean",
            f"{found.mean('psnr_input'):.1f} → {found.mean('psnr_mean'):.1f}",
            "dB, of whole photographs",
        ),
        ("λ", f"{low:.2f} to {high:.2f}", f"of the rounds; of a normal law {Z_90:.2f}"),
    ]
    boxes = (
        tag("div", tag("dt", name), tag("dd", value, tag("small", more)))
        for name, value, more in tiles
    )
    return tag("dl", *boxes, class_="tiles")


def _maps(shown: Shown) -> tuple[Array, Array]:
    """|error| and std, averaged over the channels, (H, W) each."""
    data = shown.data
    error = np.abs(data.high_res - data.mean).mean(axis=2)
    return error, np.sqrt(np.maximum(data.variance, 0)).mean(axis=2)


def _strip(shown: Shown, maps: tuple[Array, Array], top: float) -> Html:
    data, judged, half = shown.data, shown.judged, _half_width(shown)
    pictures = [
        *map(to_grey_bytes, (data.high_res, data.bilinear, data.mean)),
        *(coloured(values, top) for values in maps),
        *map(to_grey_bytes, (data.mean - half, data.mean + half)),
        _outside(shown),
    ]
    captions = list(_CAPTIONS)
    captions[1] += f", {judged.psnr_input:.1f} dB"
    captions[2] += f", {judged.psnr_mean:.1f} dB"
    name = Path(judged.name).stem
    inside = f": {percent(judged.raw)} inside as they come, {percent(judged.calibrated)} calibrated"
    parts = [
        tag("figure", _picture(pixels, f"{name}: {caption}"), tag("figcaption", caption))
        for pixels, caption in zip(pictures, captions, strict=True)
    ]
    title = tag("p", name, tag("small", inside), class_="photo")
    return join(title, tag("div", *parts, class_="strip"))


def _half_width(shown: Shown) -> Array:
    """Half of the calibrated interval of every value, (H, W, C)."""
    return shown.calibration.half_width(np.sqrt(np.maximum(shown.data.variance, 0)))


def _outside(shown: Shown) -> npt.NDArray[np.uint8]:
    """How many channels of a pixel lie outside of the interval, as colours; (H, W, 3)."""
    data = shown.data
    outside = np.abs(data.high_res - data.mean) > _half_width(shown)
    if data.hidden is not None:
        outside &= data.hidden[..., None]
    share = outside.mean(axis=2, keepdims=True)
    return np.asarray(np.rint(_INSIDE + share * (_OUTSIDE - _INSIDE)), np.uint8)


def _picture(pixels: npt.NDArray[np.uint8], alt: str, class_: str | None = "pixels") -> Html:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return tag("img", src=f"data:image/png;base64,{data}", alt=alt, class_=class_)


def _ramp(top: float) -> Html:
    ends = tag("div", tag("span", "0"), tag("span", f"{top:.0f} grey levels"))
    ramp = _picture(colours()[None], f"colours from 0 to {top:.0f} grey levels", None)
    return tag("div", "error and std", ramp, ends, class_="ramp")


def _row_plot(shown: Shown) -> Html:
    """Some pixels of the middle row: real values, and the interval of each."""
    data = shown.data
    row, first = data.mean.shape[0] // 2, max(0, (data.mean.shape[1] - _NUM_IN_ROW) // 2)
    part = (row, slice(first, first + _NUM_IN_ROW), _GREEN)
    mean, real = data.mean[part], data.high_res[part]
    half = _half_width(shown)[part]
    low, high = mean - half, mean + half
    places = np.arange(first, first + len(mean)).tolist()
    name = Path(shown.judged.name).stem
    series = [
        Series(
            "mean and calibrated 90 % interval",
            places,
            mean.tolist(),
            "series-a",
            intervals=np.stack([low, high], axis=1).tolist(),
        ),
        Series("real value", places, real.tolist(), "series-b", "crosses"),
    ]
    values = np.concatenate([low, high, real])
    edge = 0.05 * float(values.max() - values.min())
    axes = (
        Axis("pixel of the row", first - 1, first + len(mean)),
        Axis("green, grey levels", float(values.min()) - edge, float(values.max()) + edge),
    )
    num_inside = int((np.abs(real - mean) <= half).sum())
    note = f"{name}, row {row}: {num_inside} of {len(mean)} real values lie inside."
    if data.hidden is not None:
        note += " Short intervals are those of pixels that are seen."
    return figure("Interval and truth, pixel by pixel", plot(note, *axes, series), note)


def _photograph_plot(found: Found) -> Html:
    """The share inside of each photograph, before and after."""
    in_order = sorted(found.judged, key=lambda one: one.calibrated)
    places = list(range(1, len(in_order) + 1))
    shares = [[100 * getattr(one, key) for one in in_order] for key in ("raw", "calibrated")]
    low = min(min(part) for part in shares)
    series = [
        Series("90 %", [0, len(places) + 1], [100 * _LEVEL] * 2, "reference"),
        Series("as they come", places, shares[0], "series-b", "crosses"),
        Series("calibrated", places, shares[1], "series-a", "points"),
    ]
    axes = (
        Axis("photographs, in order of the share", 0, len(places) + 1),
        Axis("values inside, %", min(low - 2, 80.0), 100.5),
    )
    rounds = ", ".join(percent(share) for share in found.by_round("calibrated"))
    note = (
        f"The promise is of the average, {percent(found.mean('calibrated'))}; of one photograph it "
        f"is {percent(in_order[0].calibrated)} to {percent(in_order[-1].calibrated)}. "
        f"By round: {rounds}."
    )
    alt = "share of values inside of each photograph, before and after the calibration"
    return figure("Photograph by photograph", plot(alt, *axes, series), note)


def _how(preset: Preset, found: Sequence[Found]) -> Html:
    split, any_of = preset.split, found[0]
    num = any_of.num_calibrating
    expected = _LEVEL * (1 + 1 / num)  # 1 − R̂ of docs/calibration.md
    training = ", ".join(Path(name).stem for name in split.training)
    texts = (
        f"The nets' own interval is mean ± {Z_90:.3f} std, which would hold 90 % if the law were "
        "normal and the std right; neither is promised. The calibrated one is mean ± λ std: λ is "
        "set on photographs with their truth, so that 90 % or more of the values of a further "
        "photograph are expected inside (conformal risk control).",
        "What is exchangeable is a photograph, not a pixel and not a piece of one: pieces of a "
        f"photograph are like one another. So {len(split.training)} photographs train, and "
        f"{len(split.held_out)}, of an author each, do not. These are judged in "
        f"{len(split.rounds)} rounds: in each, a part is judged by the λ that the {num} others "
        "set. So nothing that is told here was used in training or in its own calibration, and "
        "the average is over all of them, not over a lucky dozen.",
        f"With {num} photographs λ must leave {percent(1 - expected)} outside, not 10 %: few "
        f"photographs cost width. So about {percent(expected)} are to be expected inside. "
        "make demo-restore SEED=1 draws another split, other weights and noise.",
        f"Each photograph was reduced to {preset.size}×{preset.size} pixels. Training "
        f"photographs: {training}. The photographs' authors and licences stand in "
        "data/demo/LICENCES.md; docs/calibration.md has the promise, docs/restoration.md the "
        "degradations.",
    )
    rows = [
        [
            f"round {place + 1}",
            number(len(names)),
            *(f"{one.factors[place]:.3f}" for one in found),
            *(percent(one.by_round("calibrated")[place]) for one in found),
        ]
        for place, names in enumerate(split.rounds)
    ]
    titles = [one.task.title for one in found]
    head = ("", "judged", *(f"λ, {title}" for title in titles), *(f"inside, {t}" for t in titles))
    return join(*(tag("p", text) for text in texts), table("Rounds", head, [Rows("", rows)]))
