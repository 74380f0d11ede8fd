"""The second tab: what to draw of which diffusion model, how far it is, and what was drawn."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from ddpm.flags import EACH, PICTURE_FORMATS, SAMPLER_NAMES
from sr_var.app.samples import Job, Sampling
from sr_var.app.widgets import refusing
from sr_var.app.wishes import RANDOM, Model, Wish
from sr_var.flags.app import AppFlags

_USUAL_IMAGES = 8
_SECONDS_BETWEEN_LOOKS = 0.5


class _SampleTab:
    """What the tab does: functions of what it shows."""

    def __init__(self, gr: Any, sampling: Sampling, max_waiting: int) -> None:
        self._gr, self._sampling = gr, sampling
        self._pool, self._jobs = ThreadPoolExecutor(max_waiting + 1), dict[str, Job]()

    def choose(self, name: str) -> list[Any]:
        """Another model → facts, classes, steps, guidance, classifier's scale."""
        gr, model = self._gr, self._sampling.model(name)
        labels = label_choices(model)
        return [
            facts(model),
            gr.update(choices=labels, value=RANDOM, visible=len(labels) > 1),
            gr.update(maximum=model.max_steps, value=model.usual_steps),
            gr.update(visible=model.has_guidance),
            gr.update(visible=bool(model.classifier_path)),
        ]

    def draw(self, name: str, label: str, number: float, *rest: Any) -> Iterator[list[Any]]:
        """Draw → name of the job, how far it is, pictures, archive, command."""
        sampler, steps, guidance, strength, seed, ending = rest
        wish = Wish(
            model=name,
            labels=label,
            num_samples=0 if label == EACH else int(number),
            sampler=sampler,
            steps=int(steps),
            guidance_scale=guidance,
            classifier_scale=strength,
            seed=int(seed or 0),
            image_format=ending,
        )
        job, started, skip = Job(), time.monotonic(), self._gr.skip()
        self._jobs[job.name] = job
        try:
            drawn = self._pool.submit(self._sampling.draw, wish, job)
            while not drawn.done():
                told = f"{time.monotonic() - started:.0f} s: {job.said}"
                yield [job.name, told, skip, skip, skip]
                wait([drawn], timeout=_SECONDS_BETWEEN_LOOKS)
            drawing = drawn.result()
        finally:
            del self._jobs[job.name]
        told = f"{len(drawing.pictures)} images in {time.monotonic() - started:.1f} s"
        archive = self._gr.update(value=drawing.archive, interactive=True)
        words = f"The same by hand:\n```\n{drawing.command}\n```"
        yield [None, told, list(drawing.shown), archive, words]

    def stop(self, name: str | None) -> None:
        """End the drawing of this page, if one is under way."""
        if job := self._jobs.get(name or ""):
            job.stop()


def label_choices(model: Model) -> list[str]:
    """What may be chosen as a class."""
    return [RANDOM, *([EACH] if model.labels else []), *model.labels]


def facts(model: Model) -> str:
    """A line about a model."""
    return f"`{os.path.basename(model.path)}`: {model.facts}."


def add_sample_tab(gr: Any, sampling: Sampling, flags: AppFlags) -> None:
    """What to draw, and what was drawn."""
    names, wide = list(sampling.models), {"min_width": 240}
    model = sampling.model("")
    about = gr.Markdown(facts(model))
    with gr.Row():
        name = gr.Dropdown(names, value=names[0], label="Weights", visible=len(names) > 1, **wide)
        labels = label_choices(model)
        label = gr.Dropdown(labels, value=RANDOM, label="Class", visible=len(labels) > 1, **wide)
        most = sampling.max_samples
        number = gr.Slider(1, most, min(_USUAL_IMAGES, most), step=1, label="Images", **wide)
        seed = gr.Number(flags.seed, label="Seed", precision=0, minimum=0, **wide)
    with gr.Row():
        sampler = gr.Dropdown(list(SAMPLER_NAMES), value=Wish.sampler, label="Sampler", **wide)
        steps = _steps_slider(gr, model, **wide)
        shown = {"visible": model.has_guidance, **wide}
        guidance = gr.Slider(0, 10, 1, step=0.1, label="Guidance, 1: none", **shown)
        shown = {"visible": bool(model.classifier_path), **wide}
        strength = gr.Slider(0, 20, 1, step=0.1, label="Classifier's scale", **shown)
        ending = gr.Dropdown(list(PICTURE_FORMATS), value="png", label="Format", **wide)
    with gr.Row():
        start, stop = gr.Button("Draw", variant="primary"), gr.Button("Stop")
        download = gr.DownloadButton("Download everything", interactive=False)
    told = gr.Markdown(elem_id="told")
    gallery = gr.Gallery(
        label="Samples", columns=4, height="auto", object_fit="contain", elem_id="samples"
    )
    command = gr.Markdown()

    tab, own = _SampleTab(gr, sampling, flags.max_waiting), {"api_visibility": "private"}
    job = gr.State(None)
    chosen = [about, label, steps, guidance, strength]
    name.input(refusing(gr, tab.choose), [name], chosen, queue=False, **own)
    label.input(_takes_number(gr), [label], [number], queue=False, **own)
    inputs = [name, label, number, sampler, steps, guidance, strength, seed, ending]
    outputs = [job, told, gallery, download, command]
    drawn = start.click(refusing(gr, tab.draw), inputs, outputs, show_progress="hidden", **own)
    drawn.failure(lambda: "", None, [told], queue=False, **own)
    stop.click(tab.stop, [job], None, queue=False, **own)


def _steps_slider(gr: Any, model: Model, **look: Any) -> Any:
    """How many steps; as many evaluations of the network."""
    most, usual = model.max_steps, model.usual_steps
    return gr.Slider(1, most, usual, step=1, label="Steps of a sample", **look)


def _takes_number(gr: Any) -> Any:
    """One of each class leaves nothing to say of their number."""
    return lambda label: gr.update(interactive=label != EACH)
