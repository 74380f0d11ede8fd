"""What came of `make demo-restore`: every held-out photograph, judged in its round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sr_var.base_dataset import load_entries
from sr_var.calibrate.record import Calibration, interval_half_width
from sr_var.demo.restoration.commands import TASKS, Preset, Task, seconds_of, task_commands
from sr_var.demo.restoration.photographs import DATA_DIR
from sr_var.flags.verify import VerificationFlags
from sr_var.results.moments import Array
from sr_var.verify.numbers.calibrated import calibration_for, interval_metrics
from sr_var.verify.numbers.intervals import jackknife_interval
from sr_var.verify.read.images import ImageData, load_image_data
from sr_var.verify.read.records import require_one_origin, units_of
from utils import metrics
from utils.process.stop import ANEW
from utils.runs.job import working
from utils.runs.scripts import Times

# of a normal law
Z_90 = interval_half_width(0.9)


@dataclass(frozen=True)
class Judged:
    """A held-out photograph: shares of its real values inside of 90 % intervals, and PSNR in dB.

    Attributes:
        name: of its file.
        place: the round that it was judged in.
        raw: inside of mean ± 1.645 std, of the pixels that count (`verify.read.images.judged`).
        calibrated: inside of mean ± λ std, λ of the other rounds' photographs.
        of_all: the same with seen pixels counted, too.
        width, raw_width: mean widths of both intervals, grey levels.
        psnr_input, psnr_mean: of what the nets see, and of the mean.
    """

    name: str
    place: int
    raw: float
    calibrated: float
    of_all: float
    width: float
    raw_width: float
    psnr_input: float
    psnr_mean: float


@dataclass(frozen=True)
class Shown:
    """A photograph that the page shows, and the calibration of its round."""

    judged: Judged
    data: ImageData
    calibration: Calibration


@dataclass(frozen=True)
class Found:
    """What came of a task.

    Attributes:
        task: which.
        judged: all held-out photographs.
        shown: the first photographs of the first rounds, for pictures.
        factors: λ of each round.
        num_calibrating: photographs that set λ in a round, of the first.
        seconds: what its steps took together; None where that is not known.
    """

    task: Task
    judged: Sequence[Judged]
    shown: Sequence[Shown]
    factors: Sequence[float]
    num_calibrating: int
    seconds: float | None

    def mean(self, key: str) -> float:
        """Average of a metric of `Judged` over photographs."""
        return float(self._values(key).mean())

    def interval(self, key: str) -> tuple[float, float]:
        """Its 95 % interval over photographs (Student's)."""
        values = self._values(key)
        left_out = (values.sum() - values) / (len(values) - 1)
        low, high = jackknife_interval(float(values.mean()), left_out, 0.95) or (np.nan, np.nan)
        return low, high

    def by_round(self, key: str) -> list[float]:
        """Its average over the photographs of each round."""
        places = np.array([one.place for one in self.judged])
        values = self._values(key)
        return [float(values[places == place].mean()) for place in range(len(self.factors))]

    def _values(self, key: str) -> Array:
        return np.array([getattr(one, key) for one in self.judged], np.float64)


_NUM_SHOWN = 2


def find_all(preset: Preset, times: Times) -> list[Found]:
    """Judge all photographs of all tasks; says how far it is.

    Raises:
        DataError: results are missing or damaged, or a calibration is of other nets, or of a
            photograph that it is to be judged on.
    """
    split = preset.split
    with working(len(TASKS) * len(split.held_out), "judging", "image", remedy=ANEW) as job:
        return [_find(preset, task, times, job.done) for task in TASKS]


def _find(preset: Preset, task: Task, times: Times, done: Callable[[], None]) -> Found:
    split = preset.split
    entries = {one.name: one for one in load_entries(preset.info("held_out"), DATA_DIR)}
    judged, shown, factors = list[Judged](), list[Shown](), list[float]()
    num_calibrating = 0
    for place, names in enumerate(split.rounds):
        flags = _flags(preset, task, place)
        require_one_origin(flags, lambda line: None)
        units = units_of(flags)
        calibration = calibration_for(flags, names, units)
        assert calibration is not None
        factors.append(calibration.factor)
        num_calibrating = num_calibrating or calibration.num_units
        for name in names:
            data = load_image_data(entries[name], flags, units=units)
            judged.append(_judge(name, place, data, calibration))
            if name == names[0] and place < _NUM_SHOWN:
                shown.append(Shown(judged[-1], data, calibration))
            done()
    seconds = seconds_of(task_commands(preset, task), times)
    return Found(task, judged, shown, factors, num_calibrating, seconds)


def _flags(preset: Preset, task: Task, place: int) -> VerificationFlags:
    return VerificationFlags(
        data_dir=DATA_DIR,
        data_info_dict_path=preset.info("held_out"),
        large_size=preset.size,
        sr_model_output_dir=preset.results_dir(task),
        mean_model_step=preset.mean_steps,
        var_model_step=preset.var_steps,
        num_samples=0,
        calibration=preset.calibration(task, place),
        log_dir="",
    )


def _judge(name: str, place: int, data: ImageData, calibration: Calibration) -> Judged:
    inside = interval_metrics(data, calibration)
    error = np.abs(data.high_res - data.mean)
    std = np.sqrt(np.maximum(data.variance, 0))
    return Judged(
        name=name,
        place=place,
        raw=inside["raw_coverage"],
        calibrated=inside["coverage"],
        of_all=float((error <= calibration.half_width(std)).mean()),
        width=inside["mean_width"],
        raw_width=inside["raw_mean_width"],
        psnr_input=metrics.psnr(data.high_res, data.bilinear),
        psnr_mean=metrics.psnr(data.high_res, data.mean),
    )


def percent(share: float) -> str:
    """`92.4 %`."""
    return f"{metrics.percent_in_table(share)} %"


def sentence(found: Found) -> str:
    """What came of a task, in plain words."""
    which = "hidden" if found.shown[0].data.hidden is not None else "real"
    before, after = found.mean("psnr_input"), found.mean("psnr_mean")
    return (
        f"{found.task.title}: the mean is {after - before:.1f} dB nearer to the true photographs "
        f"than the input (PSNR {before:.1f} → {after:.1f} dB). Of the {which} values "
        f"{percent(found.mean('raw'))} lie in the nets' own 90 % intervals, "
        f"{percent(found.mean('calibrated'))} in calibrated ones."
    )


def in_plain_words(found: Sequence[Found]) -> list[str]:
    """A line a task."""
    num = len(found[0].judged)
    head = f"On {num} photographs that trained no net, each judged by intervals that others set:"
    return [head, *(f"- {sentence(one)}" for one in found)]
