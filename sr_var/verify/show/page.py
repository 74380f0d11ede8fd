"""Puts `report.html` together: headline, tables, plots, gallery; one file that needs no network."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sr_var.values import GREY_LEVELS
from sr_var.verify.numbers.metrics import ImageResult
from sr_var.verify.numbers.summary import Summary
from sr_var.verify.show.calibration import calibration_table, paired_table
from sr_var.verify.show.epistemic import epistemic_table
from sr_var.verify.show.gallery import EncodedImage, Gallery, GalleryContent
from sr_var.verify.show.groups import groups_section
from sr_var.verify.show.headline import counts, details, headline
from sr_var.verify.show.plots import plots
from sr_var.verify.show.tables import (
    METRIC_LABELS,
    calibrated_table,
    comparison_table,
    left_out_text,
    routes_table,
    tiles,
    truth_table,
    verdict_table,
)
from utils.files.atomic import write_text_atomic
from utils.report.html import Html, Page, Rows, Section, join, number, table, tag

REPORT_FILE = "report.html"
# images that are shown before somebody asks for all; report.css counts them, too
NUM_AT_FIRST = 4
_ASSETS = Path(__file__).with_name("page_assets")
_HELP = (
    "Point at a picture with the mouse or a finger: all pictures of the image show the place, and "
    "the text beside them tells what nets and samples say there. With the keyboard: Tab to the "
    "pictures, then the arrow keys (with Shift ten pixels at a time, Home and End to the ends of "
    "the row)."
)


class _Content(GalleryContent):
    metric_labels: list[str]


def write_report(
    log_dir: str, summary: Summary, rows: Sequence[ImageResult], gallery: Gallery
) -> str:
    """Write the page of a verification into a folder that exists; return its path."""
    path = os.path.join(log_dir, REPORT_FILE)
    write_text_atomic(path, report_page(summary, rows, gallery).render())
    return path


def report_page(summary: Summary, rows: Sequence[ImageResult], gallery: Gallery) -> Page:
    """The page, before it is text."""
    sections = [
        Section("plots", "Plots", plots(summary, [row.metrics for row in rows])),
        Section("groups", "By group", groups_section(summary)),
        Section("metrics", "Metrics", _tables(summary)),
    ]
    data: dict[str, _Content] = {}
    if gallery.images:
        content = _with_metrics(gallery.content(), rows)
        data["gallery-data"] = content
        sections.insert(0, Section("gallery", "Images", _gallery(content, gallery)))
    if "provenance" in summary:
        sections.append(Section("provenance", "Where it comes from", _provenance(summary)))
    against = "samples" if summary["num_samples"] else "the real images"
    return Page(
        title=f"Super-resolution: nets against {against}",
        lead=_lead(summary),
        sections=sections,
        styles=[(_ASSETS / "report.css").read_text("utf-8")],
        scripts=[(_ASSETS / "report.js").read_text("utf-8")] if data else [],
        data=data,
    )


def _lead(summary: Summary) -> Html:
    units = summary["units"]["text"] if "units" in summary else str(GREY_LEVELS)
    subtitle = f"{counts(summary)}. {units}"
    sentences = [tag("p", sentence) for sentence in headline(summary)]
    box = tag("div", *sentences, class_="verdict", role="note", aria_label="Verdict")
    return join(tag("p", subtitle, class_="subtitle"), box, tiles(summary))


def _provenance(summary: Summary) -> Html:
    rows: list[list[Html | str | None]] = []
    for label, texts in summary["provenance"]:
        rows += [[label, tag("code", text)] for text in texts]
    return table(
        "Checkpoints by their sha256, data and command", ["what", "record"], [Rows("", rows)]
    )


def _tables(summary: Summary) -> Html:
    said = left_out_text(summary)
    missing = tag("p", said, class_="note") if said else None
    notes = [tag("p", text) for text in details(summary)]
    notes.append(tag("p", "What a metric means unfolds at its name.", class_="note"))
    if not summary["num_samples"]:
        shown = (
            calibrated_table(summary),
            epistemic_table(summary),
            calibration_table(summary),
            routes_table(summary),
        )
        return join(*notes, tag("div", *shown, class_="tables"), missing)
    note = (
        "Good is what the exact mean and variance would show against this many samples, which are "
        "noisy themselves: no net can be expected below this noise floor. Where there is none, it "
        "says what a metric should be like."
    )
    return join(
        *notes,
        tag(
            "div",
            verdict_table(summary),
            truth_table(summary),
            calibrated_table(summary),
            epistemic_table(summary),
            class_="tables",
        ),
        tag("p", note, class_="note"),
        tag(
            "div",
            comparison_table(summary),
            routes_table(summary),
            class_="tables",
        ),
        tag("div", calibration_table(summary), paired_table(summary), class_="wide"),
        missing,
    )


def _with_metrics(content: GalleryContent, rows: Sequence[ImageResult]) -> _Content:
    """The gallery's data with the metrics of its images, to sort by."""
    by_name = {row.name: row.metrics for row in rows}
    names = list(rows[0].metrics)
    labels = [
        METRIC_LABELS.get(name) or name.replace(".", ": ", 1).replace("_", " ") for name in names
    ]
    images: list[EncodedImage] = [
        {**image, "metrics": [by_name[image["name"]].get(name) for name in names]}
        for image in content["images"]
    ]
    return {**content, "images": images, "metric_labels": labels}


def _gallery(content: _Content, gallery: Gallery) -> Html:
    labels = content["metric_labels"]
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
        tag("button", f"Show all {number(len(gallery.images))} images", type="button", id="more")
        if len(gallery.images) > NUM_AT_FIRST
        else None,
        tag("p", id="announcer", class_="hidden", aria_live="polite", role="status"),
    )
