"""The verification from end to end, image by image in parallel; and the error budget.

Memory grows neither with the number of samples nor with that of the images: of an image, metrics, a
few means and fixed histograms are left.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from sr_var.base_dataset import load_entries
from sr_var.calibrate.record import HIDDEN, Calibration
from sr_var.degrade.view import View
from sr_var.flags.verify import BudgetFlags, VerificationFlags
from sr_var.results.folder import OF_VERIFICATION, to_grey_bytes
from sr_var.results.moments import MOMENTS_FILE, TRUTH_FILE
from sr_var.values import GREY_LEVELS, Units, as_rgb
from sr_var.verify.kept import KeptResults, remove_kept
from sr_var.verify.numbers.budget import error_budget
from sr_var.verify.numbers.calibrated import (
    calibrated_section,
    calibration_for,
    with_intervals,
)
from sr_var.verify.numbers.intervals import clusters_of
from sr_var.verify.numbers.metrics import ImageResult, Row, image_result
from sr_var.verify.numbers.summary import (
    Summary,
    Totals,
    UnitsSection,
    flat_metrics,
    scatter_per_image,
    summarise,
)
from sr_var.verify.read.images import ImageData, load_image_data
from sr_var.verify.read.records import (
    BUDGET_FILE,
    command_of,
    given_class,
    origins,
    provenance,
    read_budget,
    require_one_origin,
    require_same_reading,
    units_of,
)
from sr_var.verify.read.seen import require_samples_of, view_of
from sr_var.verify.show.gallery import Gallery
from sr_var.verify.show.page import write_report
from sr_var.verify.show.panels import write_panels
from sr_var.verify.show.pictures import draw_budget, write_overview
from sr_var.verify.show.short import findings, short_table
from sr_var.verify.show.tables import budget_text, left_out_text, text_table
from utils.debug_util import describe_memory
from utils.files.atomic import write_json_atomic, write_text_atomic
from utils.images.files import safe_join
from utils.images.listing import Entry, ImageList
from utils.images.pictures import write_picture
from utils.logger import RunLogger
from utils.machine.threads import chosen_threads, ordered_map, return_free_memory
from utils.runs.job import working
from utils.untrusted.pickles import dump_pickle

_NUM_IN_OVERVIEW = 3
_IMAGES_BETWEEN_TRIMS = 8


def verify_all(flags: VerificationFlags, logger: RunLogger) -> None:
    """Compare all images, write metrics and pictures, print the table.

    Raises:
        StopRequested: if a signal came; the next run goes on with what was compared.
    """
    entries, units = inputs_of(flags, logger)
    started = time.monotonic()
    with working(len(entries), "verifying", "image") as job:
        found = compare(entries, units, flags, logger, job.done)
    if flags.dry_run:
        logger.info(describe_memory(torch.device("cpu")))
        logger.info(f"one image, with warm-up: {time.monotonic() - started:.2f} s on one core")
        return
    found.write(flags.log_dir, logger, command_of(flags.log_dir))


def inputs_of(flags: VerificationFlags, logger: RunLogger) -> tuple[ImageList, Units]:
    """The images to compare, one in a dry run; the unit of the results.

    Raises:
        DataError: the list cannot be read, or results, samples and images do not belong together.
    """
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    require_one_origin(flags, logger.info)
    require_same_reading(flags)
    return (entries[:1] if flags.dry_run else entries), units_of(flags)


def compare(
    entries: Sequence[Entry],
    units: Units,
    flags: VerificationFlags,
    logger: RunLogger,
    done: Callable[[], None],
) -> Comparison:
    """Compare images, draw their panels and print the table; `done` is called after each image."""
    view, told = view_of(flags, units), given_class(flags, logger.info)
    shifted = require_samples_of(view, flags, units)
    calibration = calibration_for(flags, [entry.name for entry in entries], units)
    num_panels = len(entries) if flags.num_panels < 0 else flags.num_panels
    num_panels = num_panels if flags.is_writing else 0
    pictures = _Pictures(flags, logger, min(num_panels, len(entries)))
    rows: list[ImageResult] = []
    totals = Totals(clusters_of(entries, flags.cluster))
    num_scatter = scatter_per_image(len(entries))
    kept = KeptResults(flags, num_scatter, logger.info)
    for result in verify_images(
        entries,
        flags,
        num_kept=num_panels,
        num_scatter=num_scatter,
        units=units,
        calibration=calibration,
        kept=kept,
    ):
        totals.add(result)
        pictures.add(result)
        rows.append(without_arrays(result))
        done()
    if kept.num_found:
        logger.info(f"{kept.num_found} images were compared by a run before this one")
    summary = summarise(rows, totals, flags)
    if calibration is not None:
        summary["calibrated"], intervals = calibrated_section(rows, calibration)
        summary["intervals"] |= intervals
    if told["nets"] or told["samples"]:
        summary["class_cond"] = told
    if not units.is_grey_levels:
        summary["units"] = _section_of(units)
    _add_seen(summary, view, shifted)
    _tell(summary, flags, logger)
    if "units" in summary:
        logger.info(str(units))
    for line in _notices(rows, summary):
        logger.info(line)
    return Comparison(summary, rows, pictures)


def _section_of(units: Units) -> UnitsSection:
    return {"low": units.low, "high": units.high, "grey_level": units.scale, "text": str(units)}


def _add_seen(summary: Summary, view: View | None, of_samples: str) -> None:
    """What the nets see, where that is not block means; what samples' network was trained on."""
    if of_samples:
        summary["samples_trained_degradation"] = of_samples
    if view is None or view.degradation is None:
        return
    summary["degradation"] = view.degradation.text
    if view.degradation.shows_pixels:
        summary["pixels"] = HIDDEN
    if view.trained:
        summary["trained_degradation"] = view.trained


@dataclass(frozen=True)
class Comparison:
    """All images, compared: the content of `results.json`, and what else is written."""

    summary: Summary
    rows: Sequence[ImageResult]
    pictures: _Pictures

    def write(
        self, log_dir: str, logger: RunLogger, command: Sequence[tuple[str, list[str]]] = ()
    ) -> None:
        """Write metrics and pictures into the folder, and what TensorBoard shows.

        `command` is what the page says of how it was made (`records.command_of`).
        """
        logger.scalars(flat_metrics(self.summary), 0)
        write_results(log_dir, self.summary, self.rows)
        logger.info(f"metrics: {log_dir}/results.json and results.csv")
        self.pictures.write(self.summary, self.rows, command)
        remove_kept(log_dir)


def _tell(summary: Summary, flags: VerificationFlags, logger: RunLogger) -> None:
    """Print the table, short or in full, or its findings alone; the log has it in full."""
    full = f"\n{text_table(summary)}"
    if not (flags.print_table and flags.full_table):
        logger.note(full)
    if flags.print_table:
        logger.info(
            f"{full}\n{findings(summary)}" if flags.full_table else f"\n{short_table(summary)}"
        )
    else:
        logger.info(findings(summary))


class _Pictures:
    """What people look at: panels as the images pass by, overview and report at the end."""

    def __init__(self, flags: VerificationFlags, logger: RunLogger, num_images: int) -> None:
        self._flags, self._logger = flags, logger
        # spread over the images, whose neighbours are often pieces of one photograph
        thirds = range(1, 2 * _NUM_IN_OVERVIEW, 2)
        self._places = {part * num_images // (2 * _NUM_IN_OVERVIEW) for part in thirds}
        self._num_added = 0
        self._shown: list[ImageData] = []
        self._gallery = Gallery(flags.ddpm_sr_output_dir, flags.num_samples, logger.info)

    def add(self, result: ImageResult) -> None:
        """Draw the panels of an image whose arrays are there."""
        if result.data is None:
            return
        write_panels(result.name, result.data, self._flags.log_dir, self._logger)
        self._gallery.add(result.name, result.data)
        if self._num_added in self._places:
            self._shown.append(result.data)
        self._num_added += 1

    def write(
        self,
        summary: Summary,
        rows: Sequence[ImageResult],
        command: Sequence[tuple[str, list[str]]],
    ) -> None:
        """Write the overview and the report, with the error budget where one was drawn up."""
        log_dir = self._flags.log_dir
        if self._shown:
            write_overview(os.path.join(log_dir, "overview.png"), self._shown)
            self._logger.info(f"pictures: {log_dir}/overview.png and panels/")
        budget = read_budget(log_dir, origins(self._flags), self._logger.info)
        page: Summary = {**summary, "provenance": [*provenance(self._flags), *command]}
        if budget:
            page["budget"] = budget
        self._logger.info(f"report: {write_report(log_dir, page, rows, self._gallery)}")


def _notices(rows: Sequence[ImageResult], summary: Summary) -> list[str]:
    """Which metrics are missing, and why; of which images."""
    lines = [f"notice: {said}"] if (said := left_out_text(summary)) else []
    num_whole = sum(math.isfinite(row.metrics.get("ceiling.reliability", 0.0)) for row in rows)
    if num_whole < len(rows):
        lines.append(
            f"notice: no ceiling: {len(rows) - num_whole} images have fewer than 4 samples, or no "
            "spread from pixel to pixel"
        )
    others = [row.num_stored for row in rows if row.num_stored]
    if others:
        most = max(others)
        lines.append(
            f"notice: {MOMENTS_FILE} of {len(others)} images counts {most} samples, not the first "
            f"{summary['num_samples']}: their moments are those of the 8-bit pictures, whose "
            "rounding adds 1/12 of a squared grey level to a variance; give --num_samples "
            f"{most} for the float ones"
        )
    if summary["num_samples"] and "ranks" not in summary:
        lines.append(
            "notice: no ranks, no fair CRPS: they need the samples' pictures, which are not there"
        )
    num_exact = sum("truth.nets.relative_mse" in row.metrics for row in rows)
    if 0 < num_exact < len(rows):
        lines.append(
            f"notice: only {num_exact} of {len(rows)} images have {TRUTH_FILE}; it is not used"
        )
    return lines


def without_arrays(result: ImageResult) -> ImageResult:
    """The result of an image whose arrays have been drawn, and whose sums have been added up."""
    return dataclasses.replace(
        result,
        metrics=Row(result.metrics),
        data=None,
        means=Row(result.means),
        histograms=None,
        expected=None,
        sums=None,
    )


def verify_image(
    entry: Entry,
    flags: VerificationFlags,
    *,
    keeps_data: bool,
    num_scatter: int = 0,
    num_threads: int = 1,
    units: Units = GREY_LEVELS,
    calibration: Calibration | None = None,
) -> ImageResult:
    """Compute the metrics of one image; write the samples', if any, mean and variance beside them.

    With `keeps_data` the result has the arrays for pictures; both stds of `num_scatter` pixels are
    kept; `num_threads` samples are decoded at a time.
    """
    data = load_image_data(entry, flags, num_threads=num_threads, units=units)
    if data.samples is not None and flags.is_writing:
        folder = safe_join(flags.ddpm_sr_output_dir, entry.name)
        rounded = to_grey_bytes(as_rgb(data.samples.mean))
        mean_path, variance_path = (os.path.join(folder, name) for name in OF_VERIFICATION)
        write_picture(mean_path, rounded)
        dump_pickle(units.spread_from_255(data.samples.variance, 2), variance_path)
    result = image_result(entry.name, data, num_scatter=num_scatter, seed=flags.seed)
    result = dataclasses.replace(result, group=entry.group)
    result = with_intervals(result, data, calibration)
    return result if keeps_data else dataclasses.replace(result, data=None)


def verify_images(
    entries: Sequence[Entry],
    flags: VerificationFlags,
    *,
    num_kept: int,
    num_scatter: int = 0,
    units: Units = GREY_LEVELS,
    calibration: Calibration | None = None,
    kept: KeptResults | None = None,
) -> Iterator[ImageResult]:
    """Yield results in the order of the entries; a few images are worked on at a time.

    The first `num_kept` keep the arrays for pictures, each both stds of `num_scatter` pixels.
    `kept`: where the results of all others are looked for and kept.
    """
    num_threads = chosen_threads(flags.num_threads)
    # where there are fewer images than threads, the rest decodes
    a_share = max(1, num_threads // len(entries))
    of = partial(
        verify_image,
        num_scatter=num_scatter,
        num_threads=a_share,
        units=units,
        calibration=calibration,
    )

    def verify(place: int) -> ImageResult:
        entry = entries[place]
        if place % _IMAGES_BETWEEN_TRIMS == 0:
            return_free_memory()
        if kept is None or place < num_kept:
            return of(entry, flags, keeps_data=place < num_kept)
        key = kept.key(entry)
        result = kept.find(entry, key)
        if result is None:
            result = of(entry, flags, keeps_data=False)
            kept.keep(entry, key, result)
        return result

    return ordered_map(verify, range(len(entries)), num_threads)


def write_results(log_dir: str, summary: Summary, rows: Sequence[ImageResult]) -> None:
    """Write `results.json` (nested by section) and `results.csv` (a row an image).

    The columns are what every image has: an exact law, for one, may be there for some only.
    """
    write_json_atomic(os.path.join(log_dir, "results.json"), _finite(summary))
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    names = [name for name in rows[0].metrics if all(name in row.metrics for row in rows)]
    writer.writerow(["name", *names])
    writer.writerows([row.name, *(repr(row.metrics[name]) for name in names)] for row in rows)
    write_text_atomic(os.path.join(log_dir, "results.csv"), buffer.getvalue())


def _finite(value: object) -> object:
    """JSON has no infinity (the PSNR of equal images): it becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_budget(flags: BudgetFlags, logger: RunLogger) -> None:
    """Draw up the error budget: rows, table, files."""
    rows = error_budget(flags, logger.info)
    logger.info("\n" + budget_text(rows))
    if flags.dry_run:
        logger.info("this was one image")
        return
    content = {"budget": list(rows), "of": origins(flags)}
    write_json_atomic(os.path.join(flags.log_dir, BUDGET_FILE), content)
    draw_budget(os.path.join(flags.log_dir, "budget.png"), rows)
    logger.info(f"budget: {flags.log_dir}/{BUDGET_FILE} and budget.png")
