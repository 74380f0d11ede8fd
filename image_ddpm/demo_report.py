"""The page of ``make demo-images``: what each solver drew, how good it is, what it cost.

Figures are those of ``image_eval.py`` and the records of ``image_sample.py``; computes none.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

from ddpm.sampling import SECONDS_FILE
from image_ddpm.demo import SOLVERS, Preset
from utils.files.atomic import write_text_atomic
from utils.files.records import read_record, require_numbers
from utils.machine.cost import seconds_per_item
from utils.report.html import Html, Page, Rows, Section, bars, figure, join, number, table, tag

_HEAD = (
    "solver",
    "steps of two evaluations",
    "seconds an image",
    "Fréchet distance",
    "its floor",
)


def write_report(preset: Preset) -> str:
    """Writes ``report.html``; returns its path.

    Raises:
        OSError: if a command of the demo has not left its figures.
        DataError: if they are damaged.
    """
    found = {solver: _figures(preset, solver) for solver in SOLVERS}
    path = os.path.join(preset.report_dir, "report.html")
    os.makedirs(preset.report_dir, exist_ok=True)
    write_text_atomic(path, _page(preset, found).render())
    return path


def _figures(preset: Preset, solver: str) -> dict[str, Any]:
    found = _results(os.path.join(preset.eval_dir(solver), "results.json"))
    found["seconds"] = seconds_per_item(os.path.join(preset.samples_dir(solver), SECONDS_FILE))
    found["grid"] = Path(preset.samples_dir(solver), "grid.png").read_bytes()
    return found


def _results(path: str) -> dict[str, Any]:
    """What ``image_eval.py`` found; ``frechet.floor`` may be None.

    Raises:
        DataError: if the file is damaged.
    """
    return read_record(path, "delete it and run demo_images.py again", _check_results)


def _check_results(found: dict[str, Any]) -> None:
    frechet = found["frechet"]
    needed = [found["dimension"], found["reference"]["count"], frechet["distance"]]
    floor = frechet["floor"]
    require_numbers(needed if floor is None else [*needed, floor])


def _page(preset: Preset, found: dict[str, dict[str, Any]]) -> Page:
    any_of = next(iter(found.values()))
    lead = tag(
        "p",
        f"A class-conditional denoiser of {preset.image_size}×{preset.image_size} pixels after "
        f"{preset.steps} steps of {preset.batch_size} digits, {any_of['reference']['count']} in "
        f"all; {preset.num_samples} samples by each solver, classifier-free guidance 1.5.",
        class_="subtitle",
    )
    values = [part["frechet"]["distance"] for part in found.values()]
    plot = figure(
        "Fréchet distance",
        bars("Fréchet distance of each solver", list(found), values, "series-a"),
        f"In the {any_of['dimension']} features of a classifier of real digits; lower is nearer to "
        f"them. Real digits against as many others: {number(any_of['frechet']['floor'], 3)}.",
    )
    rows = [
        [solver, number(steps), *_cells(found[solver])]
        for solver, steps in zip(found, preset.solver_steps, strict=True)
    ]
    grids = [_grid(solver, part) for solver, part in found.items()]
    return Page(
        title="Digits from a diffusion model",
        lead=lead,
        sections=[
            Section("samples", "Samples", tag("div", *grids, class_="plots")),
            Section("figures", "Figures", join(plot, table("Solvers", _HEAD, [Rows("", rows)]))),
        ],
    )


def _cells(part: dict[str, Any]) -> list[Html | str]:
    return [
        number(part["seconds"], 3),
        number(part["frechet"]["distance"], 4),
        number(part["frechet"]["floor"], 3),
    ]


def _grid(solver: str, part: dict[str, Any]) -> Html:
    encoded = base64.b64encode(part["grid"]).decode()
    picture = tag(
        "img",
        src=f"data:image/png;base64,{encoded}",
        alt=f"a hundred samples of {solver}, a row a digit",
        class_="pixels",
    )
    return figure(solver, picture, "Each row is asked for one digit, 0 to 9.")
