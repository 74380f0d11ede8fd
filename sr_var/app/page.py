"""The page itself, in Gradio: an image to its mean, std and intervals; samples on a second tab."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from ddpm.flags import SAMPLER_NAMES
from sr_var.app.results import Refused, Result, Results, as_picture
from sr_var.app.samples import MOST_IMAGES, RANDOM, Sampling, Wish
from sr_var.flags.app import AppFlags

_TITLE = "Mean and std of an image"
_CHANNELS = {1: ("grey",), 3: ("red", "green", "blue")}
# seconds between looks for files of the page that are old, and how old
_CACHE = (600, 3600)
_HINT = "Drop an image, then point at a pixel of its mean or std."
_NO_MODEL = """This tab draws samples from a diffusion model, and none was given.

Start the page with `--diffusion_model_path FILE`, a checkpoint of `image_train.py`;
`make demo-images` trains one on handwritten digits, and `make app` then finds it."""
_STYLE = """
footer { display: none !important; }
#input .image-container, #input .upload-container, #input .image-frame { width: 100% !important; }
#input img { object-fit: contain !important; image-rendering: pixelated; }
#input img { width: 100% !important; height: auto !important; }
#samples img { image-rendering: pixelated; }
#samples .grid-wrap { max-height: none !important; }
@media (max-width: 600px) {
  #samples .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)) !important; }
}
.prose table * { padding: 0.3em 0.5em; overflow-wrap: normal !important; word-break: normal; }
.prose td { white-space: nowrap; }
.prose pre code { white-space: pre-wrap !important; }
"""


def add_page(app: Any, results: Results, sampling: Sampling | None, flags: AppFlags) -> Any:
    """Mount the page at the root of a FastAPI application, and return that."""
    import gradio as gr

    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    theme = gr.themes.Default(font=fonts[0], font_mono=fonts[1])
    with gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=_CACHE) as page:
        gr.Markdown(f"# {_TITLE}")
        with gr.Tab("Your image"):
            _add_image_tab(gr, results, flags)
        with gr.Tab("Samples"):
            if sampling is None:
                gr.Markdown(_NO_MODEL)
            else:
                _add_sample_tab(gr, sampling, flags)
    page.queue(max_size=flags.max_waiting, default_concurrency_limit=1, api_open=False)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme,
        css=_STYLE,
        footer_links=[],
        run_history=False,
        show_error=False,
        max_file_size=flags.max_upload << 20,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
    )


def _refusing(gr: Any, work: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with a refusal as a line that the page shows."""

    def wrapped(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except Refused as refusal:
            raise gr.Error(str(refusal), print_exception=False) from None

    return wrapped


class _ImageTab:
    """What the first tab does: functions of what it shows, by the name of a result."""

    def __init__(self, gr: Any, results: Results) -> None:
        self._gr, self._results = gr, results

    def compute(self, path: str | None, level: float) -> list[Any]:
        """An upload → name, place, mean, std, words, lower, upper."""
        if path is None:
            return [None] * 4 + [_HINT, None, None]
        name = self._results.predict(self._results.read_own(path))
        result = self._results.get(name)
        picture, top = result.std_picture()
        std = self._gr.update(value=picture, label=f"Std, 0 (black) to {top:.1f} (yellow)")
        ends = map(as_picture, result.ends(level))
        return [name, None, as_picture(result.mean), std, _HINT, *ends]

    def move(self, name: str | None, place: list[int] | None, level: float) -> list[Any]:
        """Another level → words, lower, upper."""
        if name is None:
            return [_HINT, None, None]
        result = self._results.get(name)
        return [_table(result, place, level), *map(as_picture, result.ends(level))]

    def point(self, name: str | None, level: float, at: list[float]) -> list[Any]:
        """A place in the result → place, words."""
        if name is None:
            return [None, _HINT]
        place = [int(one) for one in at]
        return [place, _table(self._results.get(name), place, level)]

    def save(self, name: str | None, level: float) -> Any:
        """The archive, ready before somebody asks: a click takes what is there."""
        path = None if name is None else self._results.get(name).write_zip(level)
        return self._gr.update(value=path, interactive=path is not None)


def _add_image_tab(gr: Any, results: Results, flags: AppFlags) -> None:
    """Input, mean and std side by side; level, pixel, both ends of the interval; download."""
    gr.Markdown(
        f"The image is the low-res one as it is; the result has {results.predictor.factor} times "
        f"its width. JPEG, PNG, WEBP or BMP, up to {flags.max_upload} MiB and "
        f"{flags.max_pixels / 1e6:.3g} megapixels."
    )
    shown = {"format": "png", "interactive": False, "buttons": ["fullscreen"]}
    with gr.Row():
        upload = gr.Image(
            label="Input", sources=["upload", "clipboard"], type="filepath", elem_id="input"
        )
        # the file as it came: Gradio would decode it, whatever its size
        upload.preprocess = lambda payload: None if payload is None else payload.path
        mean, std = gr.Image(label="Mean", **shown), gr.Image(label="Std", **shown)
    with gr.Row():
        level = _level_slider(gr, results)
        download = gr.DownloadButton("Download everything", interactive=False)
    values = gr.Markdown(_HINT)
    with gr.Row():
        lower = gr.Image(label="Lower end of the interval", **shown)
        upper = gr.Image(label="Upper end of the interval", **shown)

    name, place = gr.State(None, delete_callback=results.forget, time_to_live=3600), gr.State(None)
    tab, own = _ImageTab(gr, results), {"api_visibility": "private"}
    outputs, ends = [name, place, mean, std, values, lower, upper], [values, lower, upper]
    computed = upload.input(_refusing(gr, tab.compute), [upload, level], outputs, **own)
    moved = level.release(_refusing(gr, tab.move), [name, place, level], ends, **own)
    for event in (computed, moved):
        event.success(_refusing(gr, tab.save), [name, level], [download], **own)
    # not the input: Gradio tells wrong places of what is shown enlarged
    for picture in (mean, std, lower, upper):
        select = _selecting(gr, _refusing(gr, tab.point))
        picture.select(select, [name, level], [place, values], show_progress="hidden", **own)


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


def _add_sample_tab(gr: Any, sampling: Sampling, flags: AppFlags) -> None:
    """What to draw, and what was drawn."""
    model, wide = sampling.model, {"min_width": 240}
    gr.Markdown(f"Model: `{os.path.basename(model.path)}`, of {model.max_steps} steps.")
    with gr.Row():
        labels = [RANDOM, *model.labels]
        label = gr.Dropdown(labels, value=RANDOM, label="Class", visible=len(labels) > 1, **wide)
        number = gr.Slider(1, MOST_IMAGES, 8, step=1, label="Images", **wide)
        seed = gr.Number(flags.seed, label="Seed", precision=0, minimum=0, **wide)
    with gr.Row():
        sampler = gr.Dropdown(list(SAMPLER_NAMES), value="dpmpp_2m_sde", label="Sampler", **wide)
        most = model.max_steps
        steps = gr.Slider(1, most, min(25, most), step=1, label="Steps of a sample", **wide)
        guidance = gr.Slider(
            0, 10, 1, step=0.1, label="Guidance, 1: none", visible=model.has_guidance, **wide
        )
        strength = gr.Slider(
            0,
            20,
            1,
            step=0.1,
            label="Classifier's scale",
            visible=bool(model.classifier_path),
            **wide,
        )
    with gr.Row():
        start, stop = gr.Button("Draw", variant="primary"), gr.Button("Stop")
    gallery = gr.Gallery(
        label="Samples", columns=4, height="auto", object_fit="contain", elem_id="samples"
    )
    download = gr.DownloadButton("Download everything", interactive=False)
    command = gr.Markdown()

    def draw(label: str, *rest: Any) -> list[Any]:
        number, sampler, steps, guidance, strength, seed = rest
        name = "" if label == RANDOM else label
        drawing = sampling.draw(
            Wish(name, int(number), sampler, int(steps), guidance, strength, int(seed or 0))
        )
        words = f"The same by hand:\n```\n{drawing.command}\n```"
        archive = gr.update(value=drawing.archive, interactive=True)
        return [list(drawing.pictures), archive, words]

    inputs = [label, number, sampler, steps, guidance, strength, seed]
    own = {"api_visibility": "private"}
    start.click(_refusing(gr, draw), inputs, [gallery, download, command], **own)
    stop.click(sampling.stop, None, None, queue=False, **own)
