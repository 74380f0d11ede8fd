"""The first tab: an image to its mean, its std and the interval of any pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sr_var.app.results import NEEDS_MASK, Result, Results, as_picture
from sr_var.app.widgets import refusing
from sr_var.degrade.part import Part
from sr_var.flags.app import AppFlags
from sr_var.predict.conditions import asked_levels

_CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
_HINT = "Drop an image, then point at a pixel of its mean or std."
_MASK_HINT = f"Now drop its mask. {NEEDS_MASK[0].upper()}{NEEDS_MASK[1:]}."


class _ImageTab:
    """What the first tab does: functions of what it shows, by the name of a result.

    The archive is the last step of each: it is ready before somebody asks, and what comes to be
    seen does not wait for it. An event of its own would end the stream of the page's answers just
    when a person may have sent the next thing, whose answer Gradio then loses.
    """

    def __init__(self, gr: Any, results: Results) -> None:
        self._gr, self._results = gr, results

    def compute(
        self, path: str | None, level: float, mask: str | None = None, *levels: float
    ) -> Iterator[list[Any]]:
        """Image, level, mask, levels of the image → name, place, mean, std, words, ends, file."""
        data, seen = (None if one is None else self._results.read_own(one) for one in (path, mask))
        if data is None or (seen is None and self._results.needs_mask(data)):
            words = _HINT if data is None else _MASK_HINT
            yield [None] * 4 + [words, None, None, self._archive(None)]
            return
        name = self._results.predict(data, seen, levels)
        result = self._results.get(name)
        picture, top = result.std_picture()
        std = self._gr.update(value=picture, label=f"Std, 0 (black) to {top:.1f} (yellow)")
        ends = map(as_picture, result.ends(level))
        skip = self._gr.skip()
        yield [name, None, as_picture(result.mean), std, _HINT, *ends, skip]
        yield [skip] * 7 + [self._archive(result.write_zip(level))]

    def move(self, name: str | None, place: list[int] | None, level: float) -> Iterator[list[Any]]:
        """Another level → words, lower, upper, archive."""
        if name is None:
            yield [_HINT, None, None, self._archive(None)]
            return
        result = self._results.get(name)
        ends, skip = map(as_picture, result.ends(level)), self._gr.skip()
        yield [_table(result, place, level), *ends, skip]
        yield [skip] * 3 + [self._archive(result.write_zip(level))]

    def point(self, name: str | None, level: float, at: list[float]) -> list[Any]:
        """A place in the result → place, words."""
        if name is None:
            return [None, _HINT]
        place = [int(one) for one in at]
        return [place, _table(self._results.get(name), place, level)]

    def _archive(self, path: str | None) -> Any:
        return self._gr.update(value=path, interactive=path is not None)


def add_image_tab(gr: Any, results: Results, flags: AppFlags) -> None:
    """Input, mean and std side by side; level, pixel, both ends of the interval; download."""
    factor = results.predictor.factor
    result = "is as large" if factor == 1 else f"has {factor} times its width"
    gr.Markdown(
        f"The image is the low-res one as it is; the result {result}. JPEG, PNG, WEBP or "
        f"BMP, up to {flags.max_upload} MiB and {flags.max_pixels / 1e6:.3g} megapixels."
    )
    shown = {"format": "png", "interactive": False, "buttons": ["fullscreen"]}
    with gr.Row():
        upload = _upload(gr, "Input", "input")
        masks = [_upload(gr, "Mask: bright is seen", "mask")] if results.sees_mask else []
        mean, std = gr.Image(label="Mean", **shown), gr.Image(label="Std", **shown)
    beside = masks or [gr.State(None)]
    beside += [
        _level_of_image(gr, part) for part in asked_levels(results.predictor.pair.degradation)
    ]
    with gr.Row():
        level = _level_slider(gr, results)
        download = gr.DownloadButton("Download everything", interactive=False)
    values = gr.Markdown(_HINT)
    with gr.Row():
        lower = gr.Image(label="Lower end of the interval", **shown)
        upper = gr.Image(label="Upper end of the interval", **shown)

    name, place = gr.State(None, delete_callback=results.forget, time_to_live=3600), gr.State(None)
    tab, own = _ImageTab(gr, results), {"api_visibility": "private"}
    ends = [values, lower, upper, download]
    outputs = [name, place, mean, std, *ends]
    given = [upload, level, *beside]
    changes = [one.input for one in (upload, *masks)] + [one.release for one in beside[1:]]
    for change in changes:
        change(refusing(gr, tab.compute), given, outputs, **own)
    level.release(refusing(gr, tab.move), [name, place, level], ends, **own)
    # not the input: Gradio tells wrong places of what is shown enlarged
    for picture in (mean, std, lower, upper):
        select = _selecting(gr, refusing(gr, tab.point))
        picture.select(select, [name, level], [place, values], show_progress="hidden", **own)


def _upload(gr: Any, label: str, name: str) -> Any:
    """A place to drop a picture."""
    upload = gr.Image(label=label, sources=["upload", "clipboard"], type="filepath", elem_id=name)
    # the file as it came: Gradio would decode it, whatever its size
    upload.preprocess = lambda payload: None if payload is None else payload.path
    return upload


def _level_of_image(gr: Any, part: Part) -> Any:
    """The level of a degradation that the networks are told."""
    ends = part.level.low, part.level.high
    value = round(sum(ends) / 2) if part.level.is_whole else sum(ends) / 2
    step = 1 if part.level.is_whole else (ends[1] - ends[0]) / 100
    return gr.Slider(*ends, value, step=step, label=f"Level of {part.name} in the image")


def _level_slider(gr: Any, results: Results) -> Any:
    """The level of the intervals, which a calibration fixes."""
    own, is_free = results.predictor.level, results.predictor.calibration is None
    label = "Level of the interval" + ("" if is_free else ", calibrated")
    # up to what was asked for at the start, however high
    ends = min(0.5, own), max(0.99, own)
    return gr.Slider(*ends, own, step=0.01, label=label, interactive=is_free)


def _selecting(gr: Any, point: Callable[..., Any]) -> Callable[..., Any]:
    """What Gradio calls with a place: it looks for the type of the last argument."""

    def select(name: Any, level: Any, event: Any) -> Any:
        return point(name, level, event.index)

    select.__annotations__["event"] = gr.SelectData
    return select


def _table(result: Result, at: list[int] | None, level: float) -> str:
    """What is known of a pixel, by channel."""
    if at is None:
        return _HINT
    x, y = at
    found = result.at(x, y, level)
    names = _CHANNELS.get(len(found["mean"]), ())
    rows = [
        f"pixel {x}, {y} | mean | std | {100 * level:.0f} % interval",
        ":-- | --: | --: | --:",
    ]
    for i, name in enumerate(names):
        mean, std, lower, upper = (found[kind][i] for kind in ("mean", "std", "lower", "upper"))
        rows.append(f"{name} | {mean:.1f} | {std:.1f} | {lower:.1f} to {upper:.1f}")
    note = "Column and row of the result; values in grey levels, 0 to 255."
    return "\n".join([*(f"| {row} |" for row in rows), "", note])
