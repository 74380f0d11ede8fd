"""The networks as a function of an image in memory: `Predictor`.

`sr_predict.py` does the same with files (`run`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sr_var.calibrate.record import Calibration, interval_half_width, read_calibration
from sr_var.flags.predict import NetPairFlags, PredictorFlags
from sr_var.mean_module import MeanModule
from sr_var.predict.arrays import Extras, to_low_res
from sr_var.predict.images import LowRes
from sr_var.predict.nets import NetPair, load_pair
from sr_var.predict.tiles import AUTO_OVERLAP, Plan, finished_rows, make_plan, tile_sizes
from utils.files.atomic import JsonObject
from utils.flags.groups import Precision
from utils.loops.networks import chosen_precision
from utils.script_util import AUTO

FloatArray = npt.NDArray[np.float32]
ImageT = TypeVar("ImageT", FloatArray, Tensor)


@dataclass(frozen=True)
class Prediction(Generic[ImageT]):
    """What the networks say of one image, in the unit and the layout of the image they were given.

    If X was measured in other channels, or another range of values, than Y, it is in the unit of Y:
    grey levels 0 to 255 of 8-bit pictures, else those of `--value_range`.

    Attributes:
        mean: E[Y | X], neither clipped nor rounded.
        std: √Var[Y | X]; where the network says less than 0 it is 0.
        lower: lower end of the interval of the level that was asked for: of a normal law, or of a
            calibration.
        upper: its upper end.
    """

    mean: ImageT
    std: ImageT
    lower: ImageT
    upper: ImageT


class Predictor:
    """Mean, std and intervals of the high-res image of any low-res image, in two passes.

    Args:
        pair: the networks.
        level: of the intervals, in (0, 1); None: that of the calibration, without one 0.9.
        tile: side of a tile, low-res pixels; -1: as `sr_predict.py --tile auto`.
        overlap: of the tiles, likewise.
        batch_size: tiles per forward pass.
        calibration: calibration.json of sr_calibrate.py, or what it holds: the intervals are then
            its own, and so is the std if it has been recalibrated (docs/calibration.md).
        label: the class of the images, its label or its name, for networks that know classes.

    Raises:
        ValueError: the level is another one than the calibration's, or none; or the label is
            missing, unknown, or given to networks without classes.
        CheckpointError: the calibration is of other networks.
        DataError: its file is missing or damaged, or it counts pixels that the networks see.
    """

    def __init__(
        self,
        pair: NetPair,
        *,
        level: float | None = None,
        tile: int = AUTO,
        overlap: int = AUTO_OVERLAP,
        batch_size: int = 1,
        calibration: Calibration | str | None = None,
        label: int | str | None = None,
    ) -> None:
        self.pair, self.batch_size = pair.given(label), batch_size
        self.tile, self.overlap = tile_sizes(pair, tile, overlap)
        if isinstance(calibration, str):
            calibration = read_calibration(calibration)
        self.calibration, self.level = calibration, _level(level, calibration)
        self._width = interval_half_width(self.level)
        if calibration is not None:
            calibration.require_nets(pair.digests[:1], pair.digests[1:], "these networks")
            seen = pair.degradation
            calibration.require_pixels(is_hidden=seen is not None and seen.shows_pixels)

    @classmethod
    def from_checkpoints(
        cls,
        mean: str | MeanModule,
        var: str,
        device: str | torch.device | None = None,
        *,
        precision: Precision | None = None,
        log: Callable[[str], None] = lambda line: None,
        **rest: Any,
    ) -> Predictor:
        """Build it from `modelNNNNNN.pt` of sr_mean_train.py and of sr_var_train.py.

        Args:
            mean: path of the mean net, or the function in its place.
            var: path of the variance net that was trained on it.
            device: where to compute; None: the GPU if there is one, else the CPU.
            precision: of the convolutions; None: as the networks were trained.
            log: receives notices, and the sha256 of both files.
            rest: as the constructor's.

        Raises:
            CheckpointError: a file is missing or damaged, or the two do not belong together.
        """
        return cls(load_pair(mean, var, device=device, precision=precision, log=log), **rest)

    @classmethod
    def from_flags(
        cls,
        nets: NetPairFlags,
        flags: PredictorFlags,
        given: Collection[str],
        device: torch.device,
        log: Callable[[str], None],
    ) -> Predictor:
        """Build it as a script's flags say; `given` are those that do not have their default.

        A level that was left out is that of the calibration; a precision, that of the training.

        Raises:
            CheckpointError, DataError, ValueError: as `from_checkpoints` and the constructor.
        """
        asked = {name: getattr(nets, name) for name in ("use_fp16", "use_bf16") if name in given}
        precision = chosen_precision(nets.precision, asked, log, device)
        pair = load_pair(
            MeanModule(nets.mean_module) if nets.mean_module else nets.mean_model_path,
            nets.var_model_path,
            mean_args_path=nets.mean_model_args_path,
            var_args_path=nets.var_model_args_path,
            device=device,
            precision=precision or (nets.asked_precision if asked else None),
            compute=nets,
            log=log,
        )
        return cls(
            pair,
            level=flags.level if "level" in given else None,
            tile=flags.tile,
            overlap=flags.overlap,
            batch_size=flags.batch_size,
            calibration=flags.calibration or None,
            label=flags.label,
        )

    @property
    def factor(self) -> int:
        """Pixels of the result along the side of one of the image."""
        return self.pair.factor

    @overload
    def __call__(self, image: npt.NDArray[Any], **extras: Any) -> Prediction[FloatArray]: ...

    @overload
    def __call__(self, image: Tensor, **extras: Any) -> Prediction[Tensor]: ...

    def __call__(
        self, image: npt.NDArray[Any] | Tensor, **extras: Any
    ) -> Prediction[FloatArray] | Prediction[Tensor]:
        """Predict the high-res image of a low-res one, of any size.

        Args:
            image: a numpy array (h, w, C) or (h, w), or a tensor (C, h, w) or (h, w). Networks of
                8-bit pictures take grey levels 0 to 255 in uint8, or floats in [0, 1]; those of a
                `--value_range` uint8, uint16 or floats in the unit of their training; those of
                measured images of a kind of their own take that kind. Grey images are shown to
                each of the C channels.
            extras: what is beside it, for networks that see more than an image, by the names of
                `sr_var.predict.arrays.Extras`: mask, also, degradation_level.

        Returns:
            float32, (f·h, f·w, C) or (C, f·h, f·w), in the unit of the image or, where X is of
            another kind, of Y; a tensor on its device.

        Raises:
            ValueError: another shape or type; values that are not finite, outside of [0, 1], or
                more than a whole range outside of the training's; or the networks see more, or
                less, than is given.
        """
        parts = [part for _, part in self._rows(self._seen_of(image, extras))]
        whole = {
            one.name: np.concatenate([getattr(part, one.name) for part in parts])
            for one in dataclasses.fields(Prediction)
        }
        return _as_given(Prediction(**whole), image)

    @overload
    def tiles(
        self, image: npt.NDArray[Any], **extras: Any
    ) -> Iterator[tuple[int, Prediction[FloatArray]]]: ...

    @overload
    def tiles(self, image: Tensor, **extras: Any) -> Iterator[tuple[int, Prediction[Tensor]]]: ...

    def tiles(
        self, image: npt.NDArray[Any] | Tensor, **extras: Any
    ) -> Iterator[tuple[int, Prediction[FloatArray]] | tuple[int, Prediction[Tensor]]]:
        """Yield the same result in parts from top to bottom, for what is too large for the memory.

        Each is (row, part): the part's first row in the result, and a `Prediction` of all columns.
        The rows of one row of tiles are in memory at a time.
        """
        for row, part in self._rows(self._seen_of(image, extras)):
            yield row, _as_given(part, image)  # type: ignore[misc]

    def plan(self, image: LowRes) -> Plan:
        """The tiles of an image."""
        height, width, _ = image.pixels.shape
        return make_plan(self.pair, height, width, self.tile, self.overlap)

    def rows(self, image: LowRes) -> Iterator[tuple[FloatArray, FloatArray]]:
        """Mean and variance, some rows (r, f·w, C) at a time (`tiles.finished_rows`)."""
        return finished_rows(self.pair, image, self.plan(image), self.batch_size)

    def prediction(
        self, mean: FloatArray, variance: FloatArray, image: LowRes
    ) -> Prediction[FloatArray]:
        """Std and interval of moments in the unit of the result, as `rows` yields them."""
        std = std_of(variance)
        half = self._width * std
        if self.calibration is not None:
            scale = np.float32(self.pair.result_units(image).scale)
            std_255 = std / scale
            half = self.calibration.half_width(std_255) * scale
            if self.calibration.std_map is not None:
                std = self.calibration.std(std_255) * scale
        return Prediction(mean, std, mean - half, mean + half)

    def intervals(self) -> JsonObject:
        """What stands beside results: the intervals' level, factor, and where it comes from."""
        if self.calibration is not None:
            return {"is_calibrated": True, **self.calibration.record()}
        factor = {"level": self.level, "factor": self._width}
        return {"is_calibrated": False, "method": "normal", **factor}

    def _seen_of(self, image: npt.NDArray[Any] | Tensor, extras: dict[str, Any]) -> LowRes:
        return to_low_res(image, self.pair.seen_units, self.pair.degradation, Extras(**extras))

    def _rows(self, image: LowRes) -> Iterator[tuple[int, Prediction[FloatArray]]]:
        top = 0
        for mean, variance in self.rows(image):
            yield top, self.prediction(mean, variance, image)
            top += len(mean)


def _level(level: float | None, calibration: Calibration | None) -> float:
    if calibration is None:
        return 0.9 if level is None else level
    if level not in (None, calibration.level):
        raise ValueError(
            f"--level {level:g} is not that of --calibration {calibration.path}, "
            f"{calibration.level:g}; leave it out, or calibrate with this --level"
        )
    return calibration.level


def std_of(variance: FloatArray) -> FloatArray:
    """√v, and 0 where v is negative."""
    std: FloatArray = np.sqrt(np.maximum(variance, 0))
    return std


@overload
def _as_given(part: Prediction[FloatArray], image: npt.NDArray[Any]) -> Prediction[FloatArray]: ...


@overload
def _as_given(part: Prediction[FloatArray], image: Tensor) -> Prediction[Tensor]: ...


def _as_given(
    part: Prediction[FloatArray], image: npt.NDArray[Any] | Tensor
) -> Prediction[FloatArray] | Prediction[Tensor]:
    """The results as the image came: arrays, or tensors (C, H, W) on its device."""
    if not isinstance(image, Tensor):
        return part
    arrays = {one.name: getattr(part, one.name) for one in dataclasses.fields(Prediction)}
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1))).to(image.device)
        for name, array in arrays.items()
    }
    return cast("Prediction[Tensor]", Prediction(**tensors))
