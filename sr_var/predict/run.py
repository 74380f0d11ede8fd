"""The run of sr_predict.py: every image once, by any number of processes, stoppable at any time.

Images are claimed one by one by file locks. A finished one has a record beside its results, with
the digest of its file: it is passed by as long as the file is the same.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sr_var.flags.predict import NPY, TIFF, PredictFlags
from sr_var.predict import pictures, truth
from sr_var.predict.images import InputFile, LowRes, digest_of, find_inputs
from sr_var.predict.partners import (
    TRUTH,
    InputFiles,
    PathOf,
    find_partners,
    require_one_each,
)
from sr_var.predict.predictor import Predictor
from sr_var.predict.results import Target, array_writer
from sr_var.predict.tiles import Plan
from utils.debug_util import report_cost
from utils.files.atomic import (
    JsonObject,
    remove_stale_temp_files,
    sha256_of,
    write_json_atomic,
    write_text_atomic,
)
from utils.files.lock import Lock, each_free, lock_notice
from utils.files.records import require_same_settings
from utils.flags.groups import SKIP
from utils.images.files import BadImageError
from utils.images.float_tiff import tifffile_module
from utils.process.errors import DataError
from utils.process.stop import go_on_with
from utils.runs.job import Job, working

Log = Callable[[str], None]
SETTINGS_FILE, SUMMARY, TABLE = ".predict.json", "predict.json", "predict.csv"
# --std_threshold that was left out, grey levels
_STD_THRESHOLD = 20.0
# settings that earlier versions did not have
_DEFAULTS = {"calibration": "", "format": NPY, "page": 0}
_COLUMNS = (
    "name",
    "width",
    "height",
    "mean_std",
    "share_above",
    "share_negative",
    "seconds",
    "extrapolated",
    "psnr",
    "psnr_bilinear",
    "coverage",
    "z2",
    "low_res_rms",
)


@dataclass(frozen=True)
class Found:
    """What the rows of a result have added up to."""

    mean_std: float
    share_above: float
    share_negative: float


class _TakenOverError(Exception):
    """Another process has the image now: this one stood still for too long."""


class PredictRun:
    """All images of `--input`.

    `log` is told a line of each image. Results of other settings in the output folder are a
    DataError.
    """

    def __init__(self, predictor: Predictor, flags: PredictFlags, log: Log) -> None:
        self._predictor, self._flags, self._log = predictor, flags, log
        self._units = predictor.pair.units
        self._threshold = flags.std_threshold
        if self._threshold < 0:
            self._threshold = _STD_THRESHOLD * self._units.scale
        if flags.format == TIFF:
            tifffile_module()
        self._inputs = find_inputs(flags.input, log)
        _require_apart(flags)
        pair = predictor.pair
        self._files = InputFiles.find(flags, self._inputs, pair.seen_units, pair.degradation, log)
        self._truth_of: PathOf = lambda name: None
        if flags.truth:
            self._truth_of = find_partners(flags.truth, TRUTH, log)
            require_one_each(flags.truth, TRUTH, self._inputs, flags.input)
        self._say_what_is_new()

    def dry_run(self) -> None:
        """Predict the first tile of the first image, and write nothing."""
        pair, one = self._predictor.pair, self._inputs[0]
        image = self._read(one)
        plan = self._predictor.plan(image)
        started = time.perf_counter()
        next(self._predictor.rows(image))
        seconds = (time.perf_counter() - started) * len(plan.rows)
        report_cost(pair.mean_net, pair.device, self._log)
        height, width = (pair.factor * side for side in image.pixels.shape[:2])
        self._log(
            f"{len(self._inputs)} images; {one.name} to {width}×{height} in "
            f"{len(plan.rows) * len(plan.columns)} tiles of {plan.tile}: about {seconds:.1f} s"
        )

    def run(self, rank: int = 0, world_size: int = 1) -> None:
        """Predict what is missing, then write the summary.

        Raises:
            StopRequested: a signal came; finished images stay.
            BadImageError: an image cannot be used, unless `--on_bad_image skip`.
        """
        folder = self._flags.output_dir
        settings = self.settings()
        require_same_settings(os.path.join(folder, SETTINGS_FILE), settings, defaults=_DEFAULTS)
        offset, remedy = (
            rank * len(self._inputs) // world_size,
            go_on_with(f"--output_dir {folder}"),
        )
        num_skipped = 0
        if notice := lock_notice(folder):
            self._log(notice)
        with working(
            len(self._inputs), "predicting", "image", is_shown=rank == 0, remedy=remedy
        ) as job:
            # processes begin at different places of the list, so that they seldom meet
            in_order = [*self._inputs[offset:], *self._inputs[:offset]]
            num_left = len(in_order)
            for one, lock in each_free(((one, self._lock_path(one)) for one in in_order), job.wait):
                num_left -= 1
                try:
                    with lock:
                        self._work_on(one, lock, job)
                except BadImageError as error:
                    if self._flags.on_bad_image != SKIP:
                        raise self._with_way_out(error) from None
                    self._log(f"warning: left out: {error}")
                    num_skipped += 1
                    job.done()
            job.bar.skip(num_left)  # other processes are busy with them
        if num_skipped == len(self._inputs):
            raise DataError(f"--on_bad_image skip leaves no image: all {num_skipped} are damaged")
        self.summarise(settings)

    def _with_way_out(self, error: BadImageError) -> BadImageError:
        """The error of one image of several, with the flag that leaves it out."""
        if len(self._inputs) == 1:
            return error
        return BadImageError(f"{error} (--on_bad_image {SKIP} leaves it out)")

    def settings(self) -> dict[str, Any]:
        """What the results depend on beside the images."""
        pair, flags = self._predictor.pair, self._flags
        more: dict[str, Any] = {} if pair.label is None else {"label": pair.label}
        if flags.levels:
            more["degradation_level"] = flags.degradation_level
        return {
            **more,
            "mean_model_sha256": pair.digests[0],
            "var_model_sha256": pair.digests[1],
            "precision": str(pair.precision),
            "tile": self._predictor.tile,
            "overlap": self._predictor.overlap,
            "level": self._predictor.level,
            "calibration": sha256_of(flags.calibration) if flags.calibration else "",
            "std_threshold": self._threshold,
            "apply_orientation": flags.apply_orientation,
            "format": flags.format,
            "page": flags.page,
        }

    def summarise(self, settings: dict[str, Any]) -> None:
        """Write predict.json and predict.csv of all images that are finished, by any process."""
        records = {one.name: self._target(one).record() for one in self._inputs}
        records = {name: record for name, record in records.items() if record}
        folder = self._flags.output_dir
        content = {
            "settings": settings,
            **self._units.record(),
            "intervals": self._predictor.intervals(),
            "num_images": len(records),
        }
        content["images"] = records
        write_json_atomic(os.path.join(folder, SUMMARY), content)
        table = io.StringIO()
        writer = csv.DictWriter(table, _COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for name, record in records.items():
            row = {"name": name, **record, **record.get("truth", {})}
            writer.writerow({key: row[key] for key in _COLUMNS if key in row})
        write_text_atomic(os.path.join(folder, TABLE), table.getvalue())
        self._log(f"{len(records)} images in {os.path.join(folder, TABLE)}")

    # ---- one image

    def _lock_path(self, one: InputFile) -> str:
        digest = hashlib.sha256(one.name.encode()).hexdigest()[:20]
        return os.path.join(self._flags.output_dir, ".claims", f"{digest}.lock")

    def _work_on(self, one: InputFile, lock: Lock, job: Job) -> None:
        """Predict an image that no other process is busy with, unless it is done."""
        target, path = self._target(one), self._truth_of(one.name)
        record = target.record()
        digests = self._files.digests(one)
        is_known = all(record.get(key) == digest for key, digest in digests.items())
        has_truth = path is None or record.get("truth_sha256") == digest_of(path)
        kept = (*pictures.PICTURES, *(target.arrays if self._flags.save_arrays else ()))
        if is_known and has_truth and target.is_whole(kept):
            job.bar.skip(1)
            return
        image = self._read(one)
        if not (is_known and target.is_whole((*pictures.PICTURES, *target.arrays))):
            remove_stale_temp_files(os.path.dirname(target.path("mean.npy")))
            # what was read, should the file have changed meanwhile
            digests["input_sha256"] = image.digest
            try:
                record = self._predict(one, target, image, job, lock) | digests
            except _TakenOverError:
                self._log(f"notice: {one.name}: left to the process that took it over meanwhile")
                job.bar.skip(1)
                return
        record = self._judge(target, image, path, record)
        target.finish(record)
        if not self._flags.save_arrays:
            target.remove(target.arrays)
        self._say(one.name, record)
        job.done(note=one.name)

    def _predict(
        self, one: InputFile, target: Target, image: LowRes, job: Job, lock: Lock
    ) -> JsonObject:
        """Write the arrays and the pictures; what is told of the image."""
        started = time.perf_counter()
        plan, factor = self._predictor.plan(image), self._predictor.factor
        height, width = image.size
        shape = (factor * height, factor * width, self._units.num_channels)
        num_rows = 0
        sums = np.zeros(3)
        placement = image.placement.divided(factor)
        with array_writer(target, shape, placement, self._units.name) as write:
            for mean, variance in self._predictor.rows(image):
                part = self._predictor.prediction(mean, variance, image)
                write(part)
                per_pixel = part.std.mean(axis=2)
                is_above = per_pixel > self._threshold
                is_negative = (variance < 0).mean(axis=2)
                for i, found in enumerate((per_pixel, is_above, is_negative)):
                    sums[i] += found.sum(dtype=np.float64)
                num_rows += len(mean)
                job.bar.update(0, f"{one.name} {100 * num_rows / shape[0]:.0f} %")
                job.check()
            if not lock.is_held():
                raise _TakenOverError
        means = (sums / (shape[0] * shape[1])).tolist()
        pictures.draw_mean(target, self._units)
        pictures.draw_std(target, self._units)
        return {
            "input": os.path.basename(one.path),
            "width": shape[1],
            "height": shape[0],
            **vars(Found(*means)),
            "seconds": round(time.perf_counter() - started, 3),
            "extrapolated": self._extrapolated(plan, image),
            "intervals": self._predictor.intervals(),
            "notices": list(image.notices),
        }

    def _judge(
        self, target: Target, image: LowRes, path: str | None, record: JsonObject
    ) -> JsonObject:
        """Draw the overview and, where there is a truth, compare with it."""
        record = {key: value for key, value in record.items() if not key.startswith("truth")}
        error = None
        if self._flags.truth and path is None:
            self._log(f"warning: --truth {self._flags.truth} has no image named {target.name}")
        if path is not None:
            pair = self._predictor.pair
            real = self._files.read_truth(path, self._units)
            self._notice(path, real.notices)
            truth.require_size(real, image, pair.factor, path)
            is_like = not pair.sees_own_kind
            record |= {
                "truth": truth.compare(target, image, real, pair.factor, is_like=is_like),
                "truth_sha256": real.digest,
            }
            self._warn_of_member(real.digest, path)
            error = truth.error_rows(target, real)
            pictures.draw_error(target, error, self._units)
        interval = self._kind_of_interval()
        further = image.layers[: len(self._flags.also_places)]
        pictures.draw_overview(target, [image, *further], interval, error, self._units)
        return record

    def _read(self, one: InputFile) -> LowRes:
        image = self._files.read(one)
        if self._flags.format == TIFF:
            lost = [f"the results lack {words}" for words in image.placement.left_out]
            image = replace(image, notices=(*image.notices, *lost))
        self._notice(one.path, image.notices)
        return image

    def _notice(self, path: str, notices: Sequence[str]) -> None:
        for notice in notices:
            self._log(f"notice: {path}: {notice}")

    def _target(self, one: InputFile) -> Target:
        return Target(self._flags.output_dir, one.name, self._flags.format)

    # ---- what is said

    def _extrapolated(self, plan: Plan, image: LowRes) -> str:
        """What of an image is unlike the training; empty if nothing is."""
        pair, (height, width) = self._predictor.pair, plan.seen
        found = []
        if pair.reach is None and (height, width) != pair.train_size:
            found.append(f"size {width}×{height}")
        if pair.reach is not None and not plan.is_exact:
            found.append(f"overlap {plan.overlap} of {pair.reach}")
        if outside := image.share_outside():
            found.append(
                f"{100 * outside:.2g} % of the values, outside of {image.low:g} to {image.high:g}"
            )
        if image.is_flat:
            found.append(
                f"values from {image.pixels.min():g} to {image.pixels.max():g} alone, of the range "
                f"{image.low:g} to {image.high:g}"
            )
        return ", ".join([*found, *image.unlike])

    def _say(self, name: str, record: JsonObject) -> None:
        """The line of a finished image."""
        units = self._units
        mean_std = f"{record['mean_std']:{'.2f' if units.is_grey_levels else '.4g'}}"
        parts = [
            f"{name}: {record['width']}×{record['height']}, std {mean_std} {units.name} on "
            f"average, above {self._threshold:g} in {100 * record['share_above']:.1f} % of the "
            "pixels"
        ]
        if record["share_negative"]:
            parts.append(f"variance below 0 in {100 * record['share_negative']:.2g} %")
        parts.append(f"unlike training: {record['extrapolated'] or 'nothing'}")
        if judged := record.get("truth"):
            upsampled = judged.get("psnr_bilinear")
            beside = "" if upsampled is None else f" (bilinear {upsampled:.2f})"
            parts.append(
                f"PSNR {judged['psnr']:.2f} dB{beside}, "
                f"{100 * judged['coverage']:.1f} % in the {self._kind_of_interval()} interval, "
                f"z² {judged['z2']:.2f}"
            )
        if judged and (hidden := judged.get("hidden")):
            parts.append(
                f"of hidden pixels PSNR {hidden['psnr']:.2f} dB, "
                f"{100 * hidden['coverage']:.1f} %, z² {hidden['z2']:.2f}"
            )
        parts.append(f"{record['seconds']:.1f} s")
        self._log("; ".join(parts))
        is_known = self._predictor.pair.sees_block_means
        if judged and is_known and judged["low_res_rms"] > truth.LARGEST_DIFFERENCE * units.scale:
            self._log(
                f"warning: {name}: the block means of the truth differ from the input by "
                f"{judged['low_res_rms']:.4g} {units.name} (root mean square); the networks were "
                "trained on block means, so metrics of another reduction say less"
            )

    def _kind_of_interval(self) -> str:
        calibrated = "calibrated " if self._predictor.calibration else ""
        return f"{calibrated}{100 * self._predictor.level:g} %"

    def _warn_of_member(self, digest: str, path: str) -> None:
        """Say of a truth that the intervals were calibrated on it."""
        calibration = self._predictor.calibration
        if calibration and any(one.sha256 == digest for one in calibration.images):
            self._log(
                f"warning: {path} took part in --calibration {calibration.path}: its coverage "
                "says nothing of other images"
            )

    def _say_what_is_new(self) -> None:
        """Notices of all images: how the networks see them, and what the intervals promise."""
        if self._predictor.calibration:
            self._log(f"intervals: {self._predictor.calibration.text()}")
        pair, tile = self._predictor.pair, self._predictor.tile
        if pair.reach is None and (tile, tile) != pair.train_size:
            self._log(
                f"notice: a U-Net's norms and attention see a whole tile, of {tile} pixels here; "
                f"it was trained on {pair.train_size} (--tile auto)"
            )
        if pair.reach is not None and self._predictor.overlap < pair.reach:
            self._log(
                f"notice: --overlap {self._predictor.overlap} is less than the {pair.reach} pixels "
                "that a result depends on; seams may be seen"
            )


def _require_apart(flags: PredictFlags) -> None:
    """Refuse an output folder whose pictures the next run would take for inputs."""
    if not os.path.isdir(flags.input):
        return
    inner, outer = (os.path.realpath(one) for one in (flags.output_dir, flags.input))
    if os.path.commonpath([inner, outer]) == outer:
        raise DataError(
            f"--output_dir {flags.output_dir} lies in --input {flags.input}: the next run would "
            "take its pictures for images; name a folder outside of it"
        )
