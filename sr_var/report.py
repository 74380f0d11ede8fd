"""The verification from end to end, and what people read and look at: table and panels.

Computes no figure; ``verification`` does. Reads no sample; ``verification_io`` does.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import torch

from sr_var.base_dataset import load_entries
from sr_var.flags import VerificationFlags
from sr_var.overview import top_of_scale, uncertainty_maps, write_overview
from sr_var.report_gallery import Gallery
from sr_var.report_page import write_report
from sr_var.results import to_grey_bytes
from sr_var.verification import Figures, ImageData, averages
from sr_var.verification_io import ImageResult, verify_images, write_results
from utils.debug_util import describe_memory
from utils.image_util import write_png
from utils.logger import RunLogger
from utils.progress import Progress
from utils.stop_util import StopFlag

_NUM_IN_OVERVIEW = 3
Picture = npt.NDArray[np.uint8]

_ROWS = (
    ("mean of the nets against the mean of the samples", None, None, None),
    ("  mse, grey levels²", "mean", "mse", "floor_mse"),
    ("  psnr, dB", "mean", "psnr", None),
    ("  nmse", "mean", "nmse", None),
    ("variance of the nets against that of the samples", None, None, None),
    ("  var error, grey levels²", "var", "var_error", "floor_var_error"),
    ("  std error, grey levels", "var", "std_error", "floor_std_error"),
    ("  mean std of the nets, grey levels", "var", "mean_std_net", None),
    ("  mean std of the samples, grey levels", "var", "mean_std_samples", None),
    ("  correlation of the two std maps", "var", "correlation", None),
    ("against the real high-res image", None, None, None),
    ("  psnr of the mean net, dB", "high_res", "psnr_net", None),
    ("  psnr of the mean of the samples, dB", "high_res", "psnr_samples", None),
    ("  psnr of bilinear upsampling, dB", "high_res", "psnr_bilinear", None),
    ("std of the nets by place", None, None, None),
    ("  at edges, grey levels", "edges", "std_at_edges", None),
    ("  on flat ground, grey levels", "edges", "std_on_flat", None),
)


def table(summary: Mapping[str, Any]) -> str:
    """The figures as text; the last column is what perfect nets would show (sampling noise)."""
    head = f"{summary['num_images']} images, {summary['num_samples']} samples each"
    lines = [f"{head:<50}{'value':>12}{'noise floor':>14}"]
    for label, section, key, floor in _ROWS:
        if section is None or key is None:
            lines.append(label)
            continue
        value = f"{summary[section][key]:.4g}"
        floor_text = f"{summary[section][floor]:.4g}" if floor else ""
        lines.append(f"{label:<50}{value:>12}{floor_text:>14}".rstrip())
    negative = int(summary["var"]["num_negative"])
    lines.append(f"negative variances set to 0: {negative}")
    return "\n".join(lines)


def mean_panel(data: ImageData) -> Picture:
    """high-res | bilinear low-res | mean of the net, side by side."""
    return to_grey_bytes(np.concatenate([data.high_res, data.bilinear, data.mean], axis=1))


def uncertainty_panel(data: ImageData) -> Picture:
    """|high-res − mean| | std of the samples | std of the net, on one colour scale from 0.

    See :func:`sr_var.overview.top_of_scale`.
    """
    maps = uncertainty_maps(data)
    row = np.concatenate(maps, axis=1) / top_of_scale([maps])
    colours = matplotlib.colormaps["inferno"](np.clip(row, 0, 1))[..., :3]
    return to_grey_bytes(255 * colours)


def write_panels(result: ImageResult, log_dir: str, logger: RunLogger) -> None:
    """Both panels of one image, as a PNG under ``panels/`` and in TensorBoard."""
    assert result.data is not None
    upper, lower = mean_panel(result.data), uncertainty_panel(result.data)
    logger.image(f"high_res | low_res | mean/{result.name}", upper, 0)
    logger.image(f"abs_error | std_samples | std_net/{result.name}", lower, 0)
    path = os.path.join(log_dir, "panels", result.name.replace("/", "__") + ".png")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_png(path, np.concatenate([upper, lower], axis=0))


def verify_all(flags: VerificationFlags, logger: RunLogger) -> bool:
    """Compares all images, writes the figures and the panels, prints the table.

    Returns:
        False if a signal stopped it.

    Raises:
        DataError: names the file that is missing or wrong.
    """
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    if flags.dry_run:
        entries = entries[:1]
    num_panels = len(entries) if flags.num_panels < 0 else flags.num_panels
    gallery = Gallery(flags.ddpm_sr_output_dir, flags.num_samples, logger.info)
    rows: list[ImageResult] = []
    shown: list[ImageData] = []
    stop, started = StopFlag(), time.monotonic()
    with stop.listening(), Progress(len(entries), "verifying", unit="image") as bar:
        for result in verify_images(entries, flags, num_kept=num_panels):
            if result.data is not None and not flags.dry_run:
                write_panels(result, flags.log_dir, logger)
                gallery.add(result.name, result.data)
                shown += [result.data] if len(shown) < _NUM_IN_OVERVIEW else []
            rows.append(dataclasses.replace(result, data=None))
            bar.update()
            if stop.reason:
                logger.info(f"stopped ({stop.reason}); run again")
                return False
    summary = summarise(rows, flags)
    logger.info("\n" + table(summary))
    if flags.dry_run:
        logger.info(describe_memory(torch.device("cpu")))
        logger.info(f"one image, with warm-up: {time.monotonic() - started:.2f} s on one core")
        logger.info("dry run of one image: nothing was written")
        return True
    logger.scalars(flat_figures(summary), 0)
    write_results(flags.log_dir, summary, rows)
    logger.info(f"figures: {flags.log_dir}/results.json and results.csv")
    if shown:
        write_overview(os.path.join(flags.log_dir, "overview.png"), shown)
        logger.info(f"pictures: {flags.log_dir}/overview.png and panels/")
    logger.info(f"report: {write_report(flags.log_dir, summary, rows, gallery)}")
    return True


def summarise(rows: Sequence[ImageResult], flags: VerificationFlags) -> dict[str, Any]:
    """The content of ``results.json``."""
    num_float = sum(row.is_float for row in rows)
    return {
        "num_images": len(rows),
        "num_samples": flags.num_samples,
        "num_images_with_float_moments": num_float,
        **averages([row.figures for row in rows]),
    }


def flat_figures(summary: Mapping[str, Figures]) -> dict[str, float]:
    """``section.key`` → value, for TensorBoard, which has no place for infinity."""
    sections = {key: part for key, part in summary.items() if isinstance(part, Mapping)}
    return {
        f"{section}.{key}": value
        for section, part in sections.items()
        for key, value in part.items()
        if math.isfinite(value)
    }
