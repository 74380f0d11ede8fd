"""The calibration from end to end: held-out images, their errors in stds, the factor, the file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sr_var.base_dataset import load_entries
from sr_var.calibrate.recalibration import ErrorsByStd
from sr_var.calibrate.record import (
    ALL,
    FILE,
    HIDDEN,
    STD_FLOOR,
    Calibration,
    Member,
    StdMap,
    digest_of_file,
    interval_half_width,
    write_calibration,
)
from sr_var.calibrate.risk import (
    CONFORMAL,
    FACTORS,
    Array,
    allowed_risk,
    alpha_of,
    fewest_units,
    risk_at,
    share_outside,
    smallest_factor,
)
from sr_var.calibrate.units import IMAGE, group, settled_kind, unit_of
from sr_var.flags.calibrate import CalibrateFlags
from sr_var.values import Units
from sr_var.verify.read.images import NetResult, judged, load_net_result
from sr_var.verify.read.records import (
    origins,
    require_one_origin,
    require_same_reading,
    units_of,
)
from sr_var.verify.read.seen import view_of
from utils.files.storage import make_folder
from utils.images.files import resolve_image_path
from utils.images.listing import Entry
from utils.machine.threads import chosen_threads, ordered_map
from utils.metrics import percent
from utils.process.errors import DataError
from utils.process.stop import ANEW
from utils.runs.job import working
from utils.seeds import stable_seed

Log = Callable[[str], None]
# of a share outside, where people want to know how many units that takes
_OUTSIDE_AT_LEAST = 0.5


@dataclass(frozen=True)
class _Work:
    """What is read of each image, and how much it counts."""

    flags: CalibrateFlags
    units: Units
    # name → weight: of one unit each, shared by its images
    weights: Mapping[str, float]

    def results(self, entries: Sequence[Entry], label: str) -> Iterator[tuple[float, NetResult]]:
        """The weight and the results of each entry, in order; a signal ends it between two."""

        def read(entry: Entry) -> tuple[float, NetResult]:
            return self.weights[entry.name], load_net_result(entry, self.flags, self.units)

        num_threads = chosen_threads(self.flags.num_threads)
        with working(len(entries), label, "image", remedy=ANEW) as job:
            for found in ordered_map(read, entries, num_threads):
                yield found
                job.done()


def calibrate(flags: CalibrateFlags, log: Log) -> None:
    """Choose the factor and write `calibration.json`.

    Raises:
        DataError: too few units for the promise, results that are missing or of other images, or a
            std that has nothing to do with the errors.
    """
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    require_one_origin(flags, log)
    require_same_reading(flags)
    names = [entry.name for entry in entries]
    kind = settled_kind(flags.cluster, names)
    by_unit = group(names, kind)
    fitted, chosen = _halves(list(by_unit), flags) if flags.recalibrate_std else ([], [*by_unit])
    _require_enough(flags, kind, len(chosen), len(entries), log)
    weights = {name: 1 / len(part) for part in by_unit.values() for name in part}
    work, find = _Work(flags, units_of(flags), weights), unit_of(kind)
    if flags.dry_run:
        load_net_result(entries[0], flags, work.units)
        return
    std_map = None
    if fitted:
        std_map = _fit([one for one in entries if find(one.name) in {*fitted}], work)
    blank = _blank(flags, kind, len(chosen), std_map)
    found = _choose(blank, [one for one in entries if find(one.name) in {*chosen}], work)
    path = os.path.join(flags.output_dir, FILE)
    known, digests = origins(flags), _digests(entries, flags)
    found = replace(
        found,
        mean_models=tuple(known["mean_models"] or ()),
        var_models=tuple(known["var_models"] or ()),
        units=work.units,
        shift=_shift(flags, work.units),
        images=tuple(Member(one, find(one), digests[one]) for one in names),
        path=path,
    )
    if not found.mean_models:
        log("warning: the results have no stamp, so nothing tells which nets this is of")
    make_folder(flags.output_dir, "--output_dir")
    write_calibration(path, found)
    for line in _told(found):
        log(line)
    log(f"calibration: {path}")


def _shift(flags: CalibrateFlags, units: Units) -> str:
    """The degradation of results that the nets were not trained on; empty of their own."""
    view = view_of(flags, units)
    return view.degradation.text if view and view.degradation and view.trained else ""


def _blank(flags: CalibrateFlags, kind: str, num_units: int, std_map: StdMap | None) -> Calibration:
    """What is known before the factor is."""
    return Calibration(
        method=flags.method,
        level=flags.level,
        factor=interval_half_width(flags.level),
        num_units=num_units,
        cluster=kind,
        delta=_delta(flags),
        std_map=std_map,
    )


def _delta(flags: CalibrateFlags) -> float | None:
    return None if flags.method == CONFORMAL else flags.delta


def _halves(units: Sequence[str], flags: CalibrateFlags) -> tuple[list[str], list[str]]:
    """Units to fit the std on, and those to choose the factor on, drawn by name and seed."""
    drawn = sorted(units, key=lambda unit: stable_seed(flags.seed, "calibrate", unit))
    num_fitted = len(drawn) // 2
    return drawn[:num_fitted], drawn[num_fitted:]


def _require_enough(
    flags: CalibrateFlags, kind: str, num_units: int, num_images: int, log: Log
) -> None:
    """Say how many units there are and how many are needed; refuse too few."""
    alpha, delta = alpha_of(flags.level), _delta(flags)
    needed, of = fewest_units(alpha, delta), f"--level {flags.level:g}"
    if delta is not None:
        of += f" --delta {delta:g}"
    there = f"{num_units} {kind}s" + (
        " (the other half of them fits the std)" if flags.recalibrate_std else ""
    )
    if num_units < needed:
        more = 2 * needed if flags.recalibrate_std else needed
        remedy = f"give {more} {kind}s or more, or a lower --level"
        if kind != IMAGE:
            remedy += "; pieces of one are no further ones"
        raise DataError(
            f"--data_info_dict_path {flags.data_info_dict_path}: {there} are too few for {of} by "
            f"--method {flags.method}, which takes {needed}; {remedy}"
        )
    images = "" if kind == IMAGE else f", {num_images} images"
    said = f"{there}{images}; {of} by {flags.method} takes {needed}"
    if delta is not None:
        half = alpha * _OUTSIDE_AT_LEAST
        said += (
            f" where no pixel may lie outside, {fewest_units(alpha, delta, half)} where "
            f"{100 * half:g} % may"
        )
    log(f"{said}; here {percent(allowed_risk(num_units, alpha, delta))} % may")


def _fit(entries: Sequence[Entry], work: _Work) -> StdMap:
    errors = ErrorsByStd()
    for weight, result in work.results(entries, "fitting the std"):
        errors.add(_std(result), _error(result), weight)
    return errors.std_map()


def _choose(blank: Calibration, entries: Sequence[Entry], work: _Work) -> Calibration:
    """The calibration with its factor, and what it found."""
    risk, raw = np.zeros(len(FACTORS)), np.zeros(len(FACTORS))
    width, raw_width, pixels = 0.0, 0.0, ALL
    for weight, result in work.results(entries, "calibrating"):
        error = np.abs(_error(result))
        pixels = pixels if result.hidden is None else HIDDEN
        raw_std = _std(result)
        std = blank.std(raw_std)
        share = weight / blank.num_units
        risk += share * share_outside(error / std)
        raw += share * share_outside(error / raw_std) if blank.std_map else 0
        width, raw_width = width + share * std.mean(), raw_width + share * raw_std.mean()
    raw = raw if blank.std_map else risk
    allowed = allowed_risk(blank.num_units, alpha_of(blank.level), blank.delta)
    # sums of shares round; what was none outside is none
    factor = smallest_factor(risk, allowed + 1e-12)
    if factor is None:
        raise DataError(
            f"{percent(float(risk[-1]))} % of the real values are more than {FACTORS[-1]:g} stds "
            f"from the mean, {percent(allowed)} % may be: the std of these results has nothing to "
            "do with their errors; look at --mean_model_step, --var_model_step and the images"
        )
    normal = blank.factor
    found = {
        "allowed_risk": allowed,
        "risk": risk_at(risk, factor),
        "normal_factor": normal,
        "normal_risk": risk_at(raw, normal),
        "mean_width": 2 * factor * float(width),
        "normal_mean_width": 2 * normal * float(raw_width),
    }
    return replace(blank, factor=factor, found=found, pixels=pixels)


def _std(result: NetResult) -> Array:
    return np.sqrt(np.maximum(judged(result.variance, result.hidden), STD_FLOOR**2))


def _error(result: NetResult) -> Array:
    return judged(result.high_res - result.mean, result.hidden)


def _digests(entries: Sequence[Entry], flags: CalibrateFlags) -> dict[str, str]:
    """Name → sha256 of the image's file."""
    return {
        one.name: digest_of_file(resolve_image_path(flags.data_dir, one.name)) for one in entries
    }


def _told(found: Calibration) -> Iterator[str]:
    told = found.found
    of = "hidden" if found.pixels == HIDDEN else "real"
    yield (
        f"on these: {100 * told['normal_risk']:.1f} % of the {of} values lie outside of mean ± "
        f"{told['normal_factor']:.3f} std, the {100 * found.level:g} % interval of a normal law"
    )
    wider = told["mean_width"] / told["normal_mean_width"]
    yield (
        f"λ = {found.factor:.3f}: {percent(told['risk'])} % lie outside, "
        f"{percent(told['allowed_risk'])} % may; intervals are {wider:.2f} times as wide"
    )
    yield found.text()
