"""The verification from end to end, and what people look at: panels.

Computes no figure; ``figures`` and ``summary`` do. Reads no sample; ``images`` does.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch

from sr_var.base_dataset import load_entries
from sr_var.flags.scripts import VerificationFlags
from sr_var.results.folder import to_grey_bytes
from sr_var.verify.belonging import origins, require_one_origin
from sr_var.verify.budget_files import read_budget
from sr_var.verify.figures import ImageData
from sr_var.verify.images import (
    ImageResult,
    require_same_orientation,
    verify_images,
    write_results,
)
from sr_var.verify.overview import top_of_scale, uncertainty_maps, write_overview
from sr_var.verify.report_gallery import Gallery
from sr_var.verify.report_page import write_report
from sr_var.verify.summary import Totals, flat_figures, scatter_per_image, summarise
from sr_var.verify.table import table
from sr_var.verify.truth import TRUTH_FILE
from utils.debug_util import describe_memory
from utils.files.names import flat_name, tag_name
from utils.files.storage import make_folder
from utils.images.files import write_png
from utils.logger import RunLogger
from utils.process.progress import Progress
from utils.process.stop import StopFlag

_NUM_IN_OVERVIEW = 3
Picture = npt.NDArray[np.uint8]


def mean_panel(data: ImageData) -> Picture:
    """high-res | bilinear low-res | mean of the net, side by side."""
    return to_grey_bytes(np.concatenate([data.high_res, data.bilinear, data.mean], axis=1))


def uncertainty_panel(data: ImageData) -> Picture:
    """|high-res − mean| | std of the samples | std of the net, on one colour scale from 0.

    See :func:`sr_var.verify.overview.top_of_scale`.
    """
    maps = uncertainty_maps(data)
    row = np.concatenate(maps, axis=1) / top_of_scale([maps])
    colours = matplotlib.colormaps["inferno"](np.clip(row, 0, 1))[..., :3]
    return to_grey_bytes(255 * colours)


def write_panels(result: ImageResult, log_dir: str, logger: RunLogger) -> None:
    """Both panels of one image, as a PNG under ``panels/`` and in TensorBoard."""
    assert result.data is not None
    upper, lower = mean_panel(result.data), uncertainty_panel(result.data)
    logger.image(f"high_res | low_res | mean/{tag_name(result.name)}", upper, 0)
    logger.image(f"abs_error | std_samples | std_net/{tag_name(result.name)}", lower, 0)
    path = os.path.join(log_dir, "panels", flat_name(result.name, ".png"))
    make_folder(os.path.dirname(path))
    write_png(path, np.concatenate([upper, lower], axis=0))


def verify_all(flags: VerificationFlags, logger: RunLogger) -> bool:
    """Compares all images, writes the figures and the panels, prints the table.

    Returns:
        False if a signal stopped it.

    Raises:
        DataError: names the file that is missing or wrong.
    """
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    require_one_origin(flags, logger.info)
    require_same_orientation(flags)
    if flags.dry_run:
        entries = entries[:1]
    num_panels = len(entries) if flags.num_panels < 0 else flags.num_panels
    pictures = _Pictures(flags, logger)
    rows: list[ImageResult] = []
    totals = Totals(flags.seed)
    stop, started = StopFlag(), time.monotonic()
    with stop.listening(), Progress(len(entries), "verifying", unit="image") as bar:
        for result in verify_images(
            entries, flags, num_kept=num_panels, num_scatter=scatter_per_image(len(entries))
        ):
            totals.add(result)
            pictures.add(result)
            rows.append(dataclasses.replace(result, data=None, histograms=None))
            bar.update()
            if stop.reason:
                logger.info(f"stopped ({stop.reason}); run again")
                return False
    summary = summarise(rows, totals, flags)
    logger.info("\n" + table(summary))
    for line in _notices(rows):
        logger.info(line)
    if flags.dry_run:
        logger.info(describe_memory(torch.device("cpu")))
        logger.info(f"one image, with warm-up: {time.monotonic() - started:.2f} s on one core")
        logger.info("dry run of one image: nothing was written")
        return True
    logger.scalars(flat_figures(summary), 0)
    write_results(flags.log_dir, summary, rows)
    logger.info(f"figures: {flags.log_dir}/results.json and results.csv")
    pictures.write(summary, rows)
    return True


class _Pictures:
    """What people look at: panels as the images pass by, overview and report at the end."""

    def __init__(self, flags: VerificationFlags, logger: RunLogger) -> None:
        self._flags, self._logger = flags, logger
        self._shown: list[ImageData] = []
        self._gallery = Gallery(flags.ddpm_sr_output_dir, flags.num_samples, logger.info)

    def add(self, result: ImageResult) -> None:
        """Draws the panels of an image whose arrays are there."""
        if result.data is None or self._flags.dry_run:
            return
        write_panels(result, self._flags.log_dir, self._logger)
        self._gallery.add(result.name, result.data)
        if len(self._shown) < _NUM_IN_OVERVIEW:
            self._shown.append(result.data)

    def write(self, summary: dict[str, Any], rows: Sequence[ImageResult]) -> None:
        """Writes the overview and the report, with the error budget where one was drawn up."""
        log_dir = self._flags.log_dir
        if self._shown:
            write_overview(os.path.join(log_dir, "overview.png"), self._shown)
            self._logger.info(f"pictures: {log_dir}/overview.png and panels/")
        budget = read_budget(log_dir, origins(self._flags), self._logger.info)
        page = {**summary, "budget": budget} if budget else summary
        self._logger.info(f"report: {write_report(log_dir, page, rows, self._gallery)}")


def _notices(rows: Sequence[ImageResult]) -> list[str]:
    """Which figures are missing, and why."""
    lines = []
    num_whole = sum(math.isfinite(row.figures["ceiling"]["reliability"]) for row in rows)
    if num_whole < len(rows):
        lines.append(
            f"notice: no ceiling: of {len(rows) - num_whole} images the moments file keeps no "
            "halves and the pictures are not there, or there are fewer than 4 samples, or no spread"
        )
    num_exact = sum("truth" in row.figures for row in rows)
    if 0 < num_exact < len(rows):
        lines.append(
            f"notice: only {num_exact} of {len(rows)} images have {TRUTH_FILE}; it is not used"
        )
    return lines
