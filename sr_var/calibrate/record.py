"""`calibration.json`: what a calibration found, of which nets and images, and whom it fits."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

from sr_var.calibrate.risk import CONFORMAL, FACTORS, RISK_CONTROL
from sr_var.calibrate.units import KINDS, unit_of
from sr_var.results.folder import SHIFT_KEY
from sr_var.values import GREY_LEVELS, Units
from utils.files.atomic import JsonObject, sha256_of, write_json_atomic
from utils.files.records import is_number, read_record, shown
from utils.metrics import VARIANCE_FLOOR
from utils.process.errors import CheckpointError, DataError

FILE = "calibration.json"
ALL, HIDDEN = "all", "hidden"
# grey levels: pixels are whole levels, so no std says less than that of rounding
STD_FLOOR: float = VARIANCE_FLOOR**0.5
_REMEDY = "give a calibration.json of sr_calibrate.py, or make it again"
_SHOWN_DIGITS = 12
_NUM_SHOWN = 3
_SHA256 = 64

Floats = npt.NDArray[Any]


def interval_half_width(level: float) -> float:
    """Half of a central interval of a normal law in stds: Φ⁻¹(½ + level/2).

    Raises:
        ValueError: a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise ValueError(f"level {level} must lie between 0 and 1, as 0.9")
    return NormalDist().inv_cdf(0.5 + level / 2)


@dataclass(frozen=True)
class StdMap:
    """A map from predicted to recalibrated std by knots, both ascending, 255ths of the range.

    Linear between the knots, proportional beyond the first and the last one.
    """

    predicted: tuple[float, ...]
    recalibrated: tuple[float, ...]

    def __call__(self, std: Floats) -> Floats:
        """The recalibrated std, same shape and dtype."""
        x, y = np.array(self.predicted), np.array(self.recalibrated)
        inside = np.interp(std, x, y)
        inside = np.where(std < x[0], std * (y[0] / x[0]), inside)
        mapped = np.where(std > x[-1], std * (y[-1] / x[-1]), inside)
        return np.asarray(mapped, std.dtype)


@dataclass(frozen=True)
class Member:
    """An image that took part: its name, its unit, and the sha256 of its file."""

    name: str
    unit: str
    sha256: str


@dataclass(frozen=True)
class Calibration:
    """Intervals mean ± factor·std that hold `level`, by the method that says in which sense.

    Attributes:
        method: `risk.CONFORMAL` or `risk.RISK_CONTROL`.
        level: 1 − α.
        factor: λ, of the std (recalibrated where there is a map, at least `STD_FLOOR`).
        num_units: n, of what λ was chosen on.
        cluster: what a unit is (`units.KINDS`).
        delta: probability with which risk control may fail; None for the conformal method.
        mean_models, var_models: sha256 of the checkpoints behind the results, as their stamps say;
            empty: not known.
        units: of the images' values.
        images: all that took part.
        std_map: of the predicted std; None: as it is.
        found: what else is told (risks, widths).
        pixels: whose share is kept: `ALL`, or `HIDDEN` where X shows the others as they are.
        path: of the file; empty before it is written.
        shift: the degradation of the images, where the nets were trained on another one.
    """

    method: str
    level: float
    factor: float
    num_units: int
    cluster: str
    delta: float | None = None
    mean_models: tuple[str, ...] = ()
    var_models: tuple[str, ...] = ()
    units: Units = GREY_LEVELS
    images: tuple[Member, ...] = ()
    std_map: StdMap | None = None
    found: Mapping[str, float] = field(default_factory=dict)
    pixels: str = ALL
    path: str = ""
    shift: str = ""

    def std(self, std_255: Floats) -> Floats:
        """The std that the factor belongs to, of the predicted one; same dtype, 255ths."""
        std = np.maximum(std_255, STD_FLOOR)
        if self.std_map is not None:
            std = np.maximum(self.std_map(std), STD_FLOOR)
        return np.asarray(std, std_255.dtype)

    def half_width(self, std_255: Floats) -> Floats:
        """Half of the interval of each pixel, 255ths of the range."""
        return np.asarray(self.factor * self.std(std_255), std_255.dtype)

    def record(self) -> JsonObject:
        """What of it stands beside results: which promise, and by how many units."""
        record: JsonObject = {
            "method": self.method,
            "level": self.level,
            "factor": self.factor,
            "num_units": self.num_units,
            "cluster": self.cluster,
        }
        if self.pixels != ALL:
            record["pixels"] = self.pixels
        if self.delta is not None:
            record["delta"] = self.delta
        return {**record, SHIFT_KEY: self.shift} if self.shift else record

    def text(self) -> str:
        """The promise in words, without a full stop."""
        of = f" of --degradation {self.shift}, for which they were not trained" * bool(self.shift)
        said = f"calibrated on {self.num_units} {self.cluster}s{of}: λ {self.factor:.3f}, "
        share = f"{100 * self.level:g} %" + " of hidden pixels" * (self.pixels == HIDDEN)
        if self.delta is None:
            return said + f"{share} expected of a further {self.cluster}"
        return f"{said}{share} expected, with probability {100 * (1 - self.delta):g} %"

    # ---- whom it fits

    def require_nets(self, mean: Sequence[str], var: Sequence[str], what: str) -> None:
        """Refuse (CheckpointError) other nets; `mean`, `var`: digests, `what` of."""
        for kind, made, asked in (("mean", self.mean_models, mean), ("var", self.var_models, var)):
            if not made:
                raise CheckpointError(
                    f"--calibration {self.path} does not know its nets: its results had no stamp; "
                    "test the nets again with sr_mean_test.py and sr_var_test.py, and calibrate"
                )
            if tuple(asked)[:1] != made[:1]:
                there, here = (one[0][:_SHOWN_DIGITS] if one else "?" for one in (made, asked))
                raise CheckpointError(
                    f"--calibration {self.path} is of another {kind} net ({there}) than {what} "
                    f"({here}); calibrate these nets with sr_calibrate.py"
                )

    def require_apart(self, names: Iterable[str], digest_of: Callable[[str], str]) -> None:
        """Refuse (DataError) images that took part, or are of a unit that did."""
        digests = {one.sha256: one.name for one in self.images}
        units = {one.unit for one in self.images}
        find = unit_of(self.cluster)
        shared = [name for name in names if find(name) in units or digest_of(name) in digests]
        if shared:
            first = ", ".join(shared[:_NUM_SHOWN]) + (", …" if len(shared) > _NUM_SHOWN else "")
            raise DataError(
                f"--calibration {self.path}: {len(shared)} of these images ({first}) took part in "
                f"it, or are of a {self.cluster} that did; intervals are judged on others: leave "
                "them out of --data_info_dict_path, or calibrate on other images"
            )

    def require_pixels(self, *, is_hidden: bool) -> None:
        """Refuse (DataError) a calibration on all pixels where some are hidden from the nets."""
        if is_hidden and self.pixels == ALL:
            raise DataError(
                f"--calibration {self.path} counts all pixels, also those that the nets see as "
                "they are; calibrate again with sr_calibrate.py, which counts hidden pixels alone"
            )

    def require_units(self, units: Units, what: str) -> None:
        """Refuse (DataError) images of another range of values or other channels."""
        if units != self.units:
            raise DataError(
                f"--calibration {self.path} is of images of {self.units.num_channels} channels "
                f"from {self.units.low:g} to {self.units.high:g}, {what} has "
                f"{units.num_channels} from {units.low:g} to {units.high:g}; calibrate on images "
                "of this kind"
            )


def write_calibration(path: str, calibration: Calibration) -> None:
    """Write it, whole or not at all."""
    write_json_atomic(
        path,
        {
            **calibration.record(),
            "found": dict(calibration.found),
            "models": {"mean": calibration.mean_models, "var": calibration.var_models},
            **calibration.units.record(),
            "std_map": calibration.std_map and asdict(calibration.std_map),
            "images": [asdict(one) for one in calibration.images],
        },
    )


def read_calibration(path: str) -> Calibration:
    """Read what `write_calibration` wrote.

    Raises:
        DataError: there is no such file, or it is damaged.
    """
    try:
        return read_record(path, _REMEDY, lambda content: _parse(content, path))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"--calibration {path} does not exist; {_REMEDY}") from None


def digest_of_file(path: str) -> str:
    """sha256 of an image's file; a DataError where there is none."""
    try:
        return sha256_of(path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise DataError(f"{os.fspath(path)}: no such file; leave it out of the list") from None


def _parse(content: JsonObject, path: str) -> Calibration:
    method, level, factor = content["method"], content["level"], content["factor"]
    cluster, num_units, delta = content["cluster"], content["num_units"], content.get("delta")
    numbers = [level, factor, num_units, *content["found"].values()]
    if not all(map(is_number, numbers)) or type(num_units) is not int:
        raise ValueError("its figures are no numbers")
    if method not in (CONFORMAL, RISK_CONTROL) or cluster not in KINDS[1:]:
        raise ValueError(f"method {shown(method)} by {shown(cluster)} is not known")
    if not (0 < level < 1 and FACTORS[0] <= factor <= FACTORS[-1] and num_units > 0):
        raise ValueError("its level, factor or number of units is out of range")
    if (delta is not None) != (method == RISK_CONTROL) or not (
        delta is None or (is_number(delta) and 0 < delta < 1)
    ):
        raise ValueError("its delta does not fit its method")
    models, pixels = content["models"], content.get("pixels", ALL)
    if pixels not in (ALL, HIDDEN):
        raise ValueError(f"pixels {shown(pixels)} are not known")
    shift = content.get(SHIFT_KEY, "")
    if not isinstance(shift, str):
        raise ValueError("its degradation is no word")
    return Calibration(
        method=method,
        level=level,
        factor=factor,
        num_units=num_units,
        cluster=cluster,
        delta=delta,
        mean_models=_digests(models["mean"]),
        var_models=_digests(models["var"]),
        units=Units.of_record(content.get("values"), path),
        images=tuple(_member(one) for one in content["images"]),
        std_map=_std_map(content["std_map"]),
        found=content["found"],
        pixels=pixels,
        path=path,
        shift=shift,
    )


def _digests(values: list[str]) -> tuple[str, ...]:
    if not all(isinstance(one, str) and len(one) == _SHA256 for one in values):
        raise ValueError("its models are no digests")
    return tuple(values)


def _member(values: Mapping[str, str]) -> Member:
    member = Member(values["name"], values["unit"], values["sha256"])
    if not all(isinstance(one, str) for one in vars(member).values()):
        raise ValueError("its images are no names and digests")
    return member


def _std_map(values: Mapping[str, list[float]] | None) -> StdMap | None:
    if values is None:
        return None
    predicted, recalibrated = values["predicted"], values["recalibrated"]
    if not all(map(is_number, [*predicted, *recalibrated])) or not predicted:
        raise ValueError("its map of the std is no numbers")
    ascends = np.all(np.diff(predicted) > 0) and np.all(np.diff(recalibrated) >= 0)
    if len(predicted) != len(recalibrated) or not ascends or min(*predicted, *recalibrated) <= 0:
        raise ValueError("its map of the std does not ascend")
    return StdMap(tuple(predicted), tuple(recalibrated))
