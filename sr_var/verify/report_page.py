"""Puts ``report.html`` together: headline, tables, plots, gallery; one file that needs no network.

The parts are in ``report_tables``, ``report_figures`` and ``report_gallery``; what makes a page
safe and readable is in ``utils.report.html``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sr_var.verify.report_figures import figures
from sr_var.verify.report_gallery import Gallery
from sr_var.verify.report_tables import (
    FIGURE_LABELS,
    Summary,
    comparison_table,
    headline,
    routes_table,
    tiles,
    truth_table,
    verdict_table,
)
from utils.files.atomic import write_text_atomic
from utils.report.html import Html, Page, Section, join, number, tag

REPORT_FILE = "report.html"
_ASSETS = Path(__file__).with_name("report_assets")
_HELP = (
    "Point at a picture with the mouse or a finger: all pictures of the image show the place, and "
    "the text beside them tells what each route says there. With the keyboard: Tab to the "
    "pictures, then the arrow keys (with Shift ten pixels at a time, Home and End to the ends of "
    "the row)."
)


class ImageFigures(Protocol):
    """Of one image: its name, and its figures by section."""

    @property
    def name(self) -> str:
        """As in the info dict."""

    @property
    def figures(self) -> Mapping[str, Mapping[str, float]]:
        """section → key → value."""


def write_report(
    log_dir: str, summary: Summary, rows: Sequence[ImageFigures], gallery: Gallery
) -> str:
    """Writes the page of a verification.

    Args:
        log_dir: folder, exists.
        summary: the content of ``results.json``.
        rows: every image's figures.
        gallery: the images that are shown.

    Returns:
        its path.
    """
    path = os.path.join(log_dir, REPORT_FILE)
    write_text_atomic(path, report_page(summary, rows, gallery).render())
    return path


def report_page(summary: Summary, rows: Sequence[ImageFigures], gallery: Gallery) -> Page:
    """The page, before it is text."""
    sections = [Section("figures", "Figures", _tables(summary))]
    plots = figures(summary, [row.figures for row in rows])
    if plots is not None:
        sections.append(Section("plots", "Plots", plots))
    data: dict[str, Any] = {}
    if gallery.images:
        data["gallery-data"] = _with_figures(gallery.content(), rows)
        sections.append(Section("gallery", "Images", _gallery(data["gallery-data"], gallery)))
    return Page(
        title="Super-resolution: nets against samples",
        lead=_lead(summary),
        sections=sections,
        styles=[_asset("report.css")],
        scripts=[_asset("report.js")] if data else [],
        data=data,
    )


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8")


def _lead(summary: Summary) -> Html:
    counts = (
        f"{number(summary.get('num_images'))} images, {number(summary.get('num_samples'))} samples "
        "each. Grey levels run from 0 to 255."
    )
    sentences = [tag("p", sentence) for sentence in headline(summary)]
    box = tag("div", *sentences, class_="verdict", role="note", aria_label="Verdict")
    return join(tag("p", counts, class_="subtitle"), box, tiles(summary))


def _tables(summary: Summary) -> Html:
    note = (
        "The noise floor is what the exact mean and variance would show against this many samples: "
        "no net can be expected below it."
    )
    verdicts = (verdict_table(summary), truth_table(summary))
    figures_of_routes = (comparison_table(summary), routes_table(summary))
    return join(
        tag("div", *verdicts, class_="tables") if any(verdicts) else None,
        tag("p", note, class_="note"),
        tag("div", *figures_of_routes, class_="tables"),
    )


def _with_figures(content: dict[str, Any], rows: Sequence[ImageFigures]) -> dict[str, Any]:
    """The gallery's data with the figures of its images, to sort by."""
    by_name = {row.name: row.figures for row in rows}
    sections: Mapping[str, Mapping[str, Any]] = rows[0].figures
    keys = [(section, key) for section, part in sections.items() for key in part]
    labels = [FIGURE_LABELS.get(f"{s}.{k}", f"{s}: {k.replace('_', ' ')}") for s, k in keys]
    images = [
        {**image, "figures": [by_name[image["name"]].get(s, {}).get(k) for s, k in keys]}
        for image in content["images"]
    ]
    return {**content, "images": images, "figure_labels": labels}


def _gallery(content: Mapping[str, Any], gallery: Gallery) -> Html:
    labels = content["figure_labels"]
    options = [tag("option", "order of the list", value="-1", selected=True)]
    options += [tag("option", label, value=str(i)) for i, label in enumerate(labels)]
    # green first: most of the brightness, and the channel of pages that have room for one only
    channels = [
        tag("option", name, value=str(i), selected=name == "green")
        for i, name in enumerate(content["channels"])
    ]
    has_choice = len(channels) > 1
    controls = tag(
        "div",
        tag("label", "Sort by ", tag("select", *options, id="sort")),
        tag("button", "Ascending", type="button", id="order"),
        tag("label", "Colour channel ", tag("select", *channels, id="channel"))
        if has_choice
        else None,
        tag("label", tag("input", type="checkbox", id="own-scale"), " a scale of its own each"),
        class_="controls",
        role="group",
        aria_label="Order and scale of the images",
    )
    which = "the chosen colour channel" if has_choice else "the green channel"
    note = (
        f"Error, std and the numbers of a pixel are those of {which}, in grey levels; means are "
        "rounded to a level. Error and std share one colour scale."
    )
    if gallery.num_left_out:
        note += f" {gallery.num_left_out} more images had no room here; see panels/."
    off = "The images are drawn by this page's own script, which is switched off."
    return join(
        tag("p", _HELP, id="gallery-help"),
        tag("p", note, class_="note"),
        controls,
        tag("div", id="scale", class_="scale"),
        tag("noscript", tag("p", off)),
        tag("ol", id="images", class_="images"),
        tag("p", id="announcer", class_="hidden", aria_live="polite", role="status"),
    )
