"""Coverage before and after a calibration, on images that took no part in it (docs/calibration.md).

Shares and widths are averaged over the units of the calibration (photographs, say), as its promise
is: `calibrated.…` of an image, section `calibrated` of all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypedDict

import numpy as np

from sr_var.calibrate.record import (
    HIDDEN,
    STD_FLOOR,
    Calibration,
    digest_of_file,
    interval_half_width,
    read_calibration,
)
from sr_var.calibrate.units import unit_of
from sr_var.flags.verify import VerificationFlags
from sr_var.results.moments import Array
from sr_var.values import Units
from sr_var.verify.numbers.intervals import every_one, jackknife_interval, leave_one_out
from sr_var.verify.numbers.metrics import ImageResult
from sr_var.verify.read.images import ImageData, judged
from sr_var.verify.read.records import origins
from utils.images.files import resolve_image_path

_NAMES = ("coverage", "raw_coverage", "mean_width", "raw_mean_width")


class CalibratedSection(TypedDict):
    """Section `calibrated` of `results.json`; `raw_…` is of the normal law's interval."""

    method: str
    level: float
    factor: float
    num_units: int
    cluster: str
    delta: float | None
    num_test_units: int
    coverage: float
    raw_coverage: float
    mean_width: float
    raw_mean_width: float
    text: str


def calibration_for(
    flags: VerificationFlags, names: Sequence[str], units: Units
) -> Calibration | None:
    """The calibration that is to be judged on images of these names; None without one.

    Raises:
        CheckpointError: it is of other nets than the results.
        DataError: it is missing or damaged, of images of other values, or an image took part.
    """
    if not flags.calibration:
        return None
    calibration, known = read_calibration(flags.calibration), origins(flags)
    made_on = known["mean_models"] or [], known["var_models"] or []
    calibration.require_nets(*made_on, f"the results in {flags.nets_dir}")
    calibration.require_units(units, "these")
    calibration.require_apart(
        names, lambda name: digest_of_file(resolve_image_path(flags.data_dir, name))
    )
    return calibration


def with_intervals(
    result: ImageResult, data: ImageData, calibration: Calibration | None
) -> ImageResult:
    """The result of an image with the share of real values inside, and the width, of both kinds."""
    if calibration is None:
        return result
    values = interval_metrics(data, calibration)
    found = {f"calibrated.{name}": value for name, value in values.items()}
    return replace(result, metrics={**result.metrics, **found})


def interval_metrics(data: ImageData, calibration: Calibration) -> dict[str, float]:
    """The share of real values inside and the width, of both kinds, by `_NAMES`; 255ths."""
    calibration.require_pixels(is_hidden=data.hidden is not None)
    error = np.abs(judged(data.high_res - data.mean, data.hidden))
    std = np.sqrt(np.maximum(judged(data.variance, data.hidden), STD_FLOOR**2))
    raw, half = interval_half_width(calibration.level) * std, calibration.half_width(std)
    values = ((error <= half).mean(), (error <= raw).mean(), 2 * half.mean(), 2 * raw.mean())
    return {name: float(value) for name, value in zip(_NAMES, values, strict=True)}


def calibrated_section(
    rows: Sequence[ImageResult], calibration: Calibration
) -> tuple[CalibratedSection, dict[str, list[float] | None]]:
    """All images together, and the 95 % intervals over units by dotted name.

    Without intervals where there are fewer than `intervals.MIN_UNITS` units.
    """
    find = unit_of(calibration.cluster)
    by_unit: dict[str, list[Mapping[str, float]]] = {}
    for row in rows:
        by_unit.setdefault(find(row.name), []).append(row.metrics)
    values: dict[str, Array] = {
        f"calibrated.{name}": np.array(
            [np.mean([image[f"calibrated.{name}"] for image in part]) for part in by_unit.values()]
        )
        for name in _NAMES
    }
    means = {name.split(".")[1]: float(of_units.mean()) for name, of_units in values.items()}
    intervals: dict[str, list[float] | None] = {}
    clusters = every_one(len(by_unit), calibration.cluster)
    if clusters.is_enough:
        left_out = leave_one_out(values, lambda part: part, clusters)
        intervals = {
            name: jackknife_interval(float(values[name].mean()), part, 0.95)
            for name, part in left_out.items()
        }
    section: CalibratedSection = {
        "method": calibration.method,
        "level": calibration.level,
        "factor": calibration.factor,
        "num_units": calibration.num_units,
        "cluster": calibration.cluster,
        "delta": calibration.delta,
        "num_test_units": len(by_unit),
        "coverage": means["coverage"],
        "raw_coverage": means["raw_coverage"],
        "mean_width": means["mean_width"],
        "raw_mean_width": means["raw_mean_width"],
        "text": "",
    }
    section["text"] = _text(section, intervals.get("calibrated.coverage"))
    if calibration.pixels == HIDDEN:
        section["text"] = section["text"].replace("of the real values", "of the hidden values")
    return section, intervals


def _text(section: CalibratedSection, interval: list[float] | None) -> str:
    of, wider = section["cluster"], section["mean_width"] / section["raw_mean_width"]
    shown = f"{100 * section['coverage']:.1f} %"
    if interval:
        shown += f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return (
        f"Calibrated on {section['num_units']} other {of}s ({section['method']}, λ "
        f"{section['factor']:.3f}), the {100 * section['level']:g} % intervals hold {shown} of the "
        f"real values of {section['num_test_units']} {of}s; as they come, "
        f"{100 * section['raw_coverage']:.1f} %. They are {wider:.2f} times as wide."
    )
