"""Baselines: one network for mean and variance by likelihood, or for quantiles by pinball loss.

They train through the same loop on the same batches as the mean net; only `compute_loss` differs.
Input: the low-res image; label: the high-res image; NCHW in [-1, 1].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ddpm.train_loop import NamesClasses
from models.layers import in_channels_of, project, smooth_base
from sr_var.data.oracle_observed import Observation
from sr_var.data.pairs import Photographs
from sr_var.data.validation import calibration_of, psnr_of
from sr_var.degradation import (
    NetInput,
    area_downsample,
    bilinear_upsample,
    low_res_of,
    mean_of,
)
from sr_var.degrade.view import degradation_of, factor_of
from sr_var.flags.nets import BETA_NLL, QUANTILE, BaselineModelFlags, BaselineTestFlags
from sr_var.flags.network import SUBPIXEL
from sr_var.losses import VARIANCE_FLOOR, beta_nll, pinball
from sr_var.mean_utils import save_mean
from sr_var.results.folder import (
    AS_BEFORE,
    LOW_RES_FILE,
    PICTURES_IN_STRIP,
    ResultFolder,
    save_array,
    strip,
)
from sr_var.results.spread import save_spread, spread_files
from sr_var.values import GREY_LEVELS, Units
from utils.files.atomic import JsonObject, write_json_atomic
from utils.files.records import read_record, require_numbers
from utils.files.storage import number_name
from utils.flags.groups import Reading
from utils.images.listing import Entry
from utils.images.pixels import image_to_255, require_finite, to_hwc
from utils.process.errors import DataError
from utils.sizes import Size
from utils.test_util import TestLoop

# mean, variance, quantiles
Outputs: TypeAlias = tuple[Tensor, Tensor | None, Tensor | None]
# level → coverage, and rms_error where the exact quantile is known
Errors: TypeAlias = dict[str, dict[str, float]]


def gaussian_outputs(raw: Tensor, offset: Tensor | None, kind: str) -> tuple[Tensor, Tensor]:
    """(mean, variance) of a network's (N, 2C, H, W), (N, C, H, W) each.

    `offset` is added to the mean, `VARIANCE_FLOOR` to `softplus` or `exp` (`kind`).
    """
    mean, free = raw.float().chunk(2, dim=1)
    variance = F.softplus(free) if kind == "softplus" else free.exp()
    return (mean if offset is None else mean + offset), variance + VARIANCE_FLOOR


def quantile_outputs(raw: Tensor, offset: Tensor | None, num_levels: int) -> Tensor:
    """(N, Q, C, H, W) of a network's (N, QC, H, W); `offset` (N, C, H, W) is added to each."""
    num, _, height, width = raw.shape
    quantiles = raw.float().reshape(num, num_levels, -1, height, width)  # (N, Q, C, H, W)
    return quantiles if offset is None else quantiles + offset[:, None]


def rearranged(quantiles: Tensor) -> tuple[Tensor, Tensor]:
    """Quantiles in ascending order, and the share of neighbours that were not.

    Levels are learned one by one and may cross. Sorting never takes them further from the truth
    (Chernozhukov, Fernández-Val & Galichon 2010). They are (N, Q, C, H, W), levels ascending.
    """
    crossed = (quantiles.diff(dim=1) < 0).double()
    share = crossed.mean() if crossed.numel() else crossed.sum()
    return quantiles.sort(dim=1).values, share


def normal_moments(quantiles: Tensor, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
    """(mean, variance) of the normal law closest to the quantiles, (N, C, H, W) each.

    Least squares of q_τ = m + s z_τ over the levels, z_τ the standard normal quantile: exact for a
    normal law, whatever the levels. For another law it is a summary, not its moments; of a law with
    two peaks the mean is right by symmetry at most. Quantiles are (N, Q, C, H, W), Q ≥ 2.
    """
    z = torch.tensor([NormalDist().inv_cdf(level) for level in levels]).to(quantiles)
    z_mean = z.mean()
    weights = (z - z_mean) / (z - z_mean).square().sum()
    std = torch.einsum("q,nqchw->nchw", weights, quantiles)
    return quantiles.mean(dim=1) - z_mean * std, std.square()


def quantile_errors(
    quantile_255: npt.ArrayLike, label_255: npt.ArrayLike, exact_255: npt.ArrayLike | None
) -> dict[str, float]:
    """How good one quantile of one image is; grey levels, all of one shape.

    `coverage`: share of real values below the quantile, those equal to it by half; its
    expectation is the level if the quantile is exact. `rms_error`: root of the mean squared
    distance from the true quantile, only where that is known.
    """
    quantile, label = (np.asarray(a, np.float64) for a in (quantile_255, label_255))
    coverage = float(np.mean(label < quantile) + 0.5 * np.mean(label == quantile))
    if exact_255 is None:
        return {"coverage": coverage}
    distance = quantile - np.asarray(exact_255, np.float64)
    return {"coverage": coverage, "rms_error": float(np.sqrt(np.mean(distance**2)))}


def summarise_errors(by_image: Sequence[Errors]) -> Errors:
    """Average over images of equal size, at least one; squared errors, not their roots."""
    summary: Errors = {}
    for level in by_image[0]:
        rows = [image[level] for image in by_image]
        summary[level] = {"coverage": float(np.mean([row["coverage"] for row in rows]))}
        if all("rms_error" in row for row in rows):
            squares = [row["rms_error"] ** 2 for row in rows]
            summary[level]["rms_error"] = float(np.sqrt(np.mean(squares)))
    return summary


def predict(flags: BaselineModelFlags, raw: Tensor, low_res: Tensor) -> Outputs:
    """What the network says: (mean, variance, quantiles as trained).

    Gaussian objectives have no quantiles. A quantile net's mean is its middle level; it has no
    variance. X is that of the network, (N, C + extra, h, w).
    """
    made = degradation_of(flags)
    size = raw.shape[2:]
    image = low_res[:, : flags.in_channels] if made is None else made.image_of(low_res)
    low_res = in_channels_of(image, flags.in_channels)
    offset = bilinear_upsample(low_res, size) if flags.predict_residual else None
    if flags.network == SUBPIXEL:
        offset = smooth_base(low_res, size[-1] // low_res.shape[-1])
    if flags.objective != QUANTILE:
        mean, variance = gaussian_outputs(raw, offset, flags.last_layer_type)
        return project(mean, low_res) if flags.consistent else mean, variance, None
    quantiles = quantile_outputs(raw, offset, len(flags.levels))
    return quantiles[:, len(flags.levels) // 2], None, quantiles


class BaselineTrainLoop(NamesClasses):
    """The likelihood of a normal law, its β-weighted form, or the pinball loss.

    The objective is one of `model_flags`; `rest` is that of `TrainLoop`.
    """

    def __init__(self, *, model_flags: BaselineModelFlags, **rest: Any) -> None:
        self._model_flags = model_flags
        super().__init__(**rest)

        # the β-weighted likelihood rises with the variance: as a score it is none
        self.criterion = "nll" if model_flags.objective == BETA_NLL else "loss"

    def compute_loss(self, micro_input: NetInput, micro_label: Tensor) -> tuple[Tensor, Tensor]:
        """The mean loss of the objective (`sr_var.losses`)."""
        label = micro_label.float()
        raw = mean_of(self.wrapped_model, micro_input, label.shape[2:])
        outputs = predict(self._model_flags, raw, low_res_of(micro_input))
        return self._loss_of(outputs, label), raw

    def _loss_of(self, outputs: Outputs, label: Tensor) -> Tensor:
        flags, (mean, variance, quantiles) = self._model_flags, outputs
        if quantiles is not None:
            return pinball(quantiles, label, flags.levels)
        assert variance is not None
        beta = flags.beta if flags.objective == BETA_NLL else 0.0
        return beta_nll(mean, variance, label, beta)

    def judge(self, batch: NetInput, label: Tensor) -> dict[str, Tensor]:
        """The loss and the PSNR; of a likelihood `z2` and `nll`; of quantiles the `coverage`.

        That is the share of real values between the outer levels.
        """
        raw = mean_of(self.wrapped_model, batch, label.shape[2:])
        outputs = predict(self._model_flags, raw, low_res_of(batch))
        mean, variance, quantiles = outputs
        metrics = {"loss": self._loss_of(outputs, label), "psnr": psnr_of(mean, label)}
        if variance is not None:
            return metrics | calibration_of((label - mean).square(), variance)
        assert quantiles is not None
        is_inside = (quantiles[:, 0] <= label) & (label <= quantiles[:, -1])
        return metrics | {"coverage": is_inside.double().mean()}

    def _post_process(
        self, micro_input: NetInput, micro_label: Tensor, micro_output: Tensor, i: int
    ) -> None:
        if i == 0 and self.is_image_step:
            shown, raw = (
                low_res_of(micro_input)[:PICTURES_IN_STRIP],
                micro_output[:PICTURES_IN_STRIP],
            )
            mean, variance, quantiles = predict(self._model_flags, raw, shown)
            shown = shown[:, : self._model_flags.in_channels]
            if variance is not None:
                spread = variance.sqrt()
            else:
                assert quantiles is not None
                spread = quantiles[:, -1] - quantiles[:, 0]
            spread = 2 * spread / spread.abs().max().clamp(min=1e-6) - 1
            label = micro_label[:PICTURES_IN_STRIP].float()
            picture = strip(shown.float(), mean, spread, label)
            self.logger.image(
                "low_res | mean or middle level | spread | target", picture, self.step
            )


def quantile_file(level: float, step: int) -> str:
    """Name of the file of one level, as in `high_res_quantile_0.05_9.npy`."""
    return f"high_res_quantile_{number_name(level)}_{step}.npy"


def errors_file(truth: str, step: int) -> str:
    """Name of an image's errors; those with exact quantiles are files of their own."""
    return f"quantile_errors_{'' if truth == 'none' else truth + '_'}{step}.json"


def baseline_result_folder(
    flags: BaselineModelFlags,
    test: BaselineTestFlags,
    step: int,
    *,
    reading: Reading = AS_BEFORE,
    units: Units = GREY_LEVELS,
) -> ResultFolder:
    """The files of a baseline; the last one makes an image done.

    Raises:
        ValueError: exact quantiles are asked for that the network does not estimate.
    """
    if test.truth == "oracle" and degradation_of(flags) is not None:
        seen = Observation.parse(flags.degradation, factor_of(flags))  # or it is refused
        if seen is not None and not flags.value_range:
            raise ValueError(
                f"--truth oracle given {flags.degradation} is of images that are not rounded "
                f"(oracle_data.py --degradation), the network of {test.model_path} reads 8 bits: "
                "leave it out, or train one with --value_range 0,255"
            )
    if test.truth == "oracle" and flags.class_cond:
        raise ValueError(
            "--truth oracle has the quantiles of Y given X, the network of "
            f"{test.model_path} estimates those given X and the class: leave it out"
        )
    files = [LOW_RES_FILE]
    if flags.num_outputs > 1:
        files += [f"high_res_mean_{step}.png", f"high_res_mean_{step}.npy"]
        files += spread_files(step, has_array=test.var_npy)
    if flags.objective == QUANTILE:
        files += [quantile_file(level, step) for level in flags.levels]
        files.append(errors_file(test.truth, step))
    paths = [test.model_path]
    return ResultFolder(test.output_dir, "baseline", step, files, paths, reading, units)


class BaselineTestLoop(TestLoop):
    """Writes mean and variance of every image as the two nets' tests do, and quantiles.

    `step` is that of the network, in the file names; `exact`, if any, computes the exact quantiles.
    """

    def __init__(
        self,
        *,
        model_flags: BaselineModelFlags,
        results: ResultFolder,
        step: int,
        exact: ExactQuantiles | None = None,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self._model_flags, self._results, self._step = model_flags, results, step
        self._exact = exact
        with_array = spread_files(step, has_array=True)
        self._spread_files = [file for file in with_array if file in results.file_names]

    def forward(self, batch: NetInput, batch_kwargs: Photographs) -> Tensor:
        """All outputs of the network, side by side in the channels."""
        return mean_of(self.model, batch, batch_kwargs.high_res.shape[2:])

    def _post_process(self, batch: NetInput, output: Tensor, batch_kwargs: Photographs) -> None:
        flags, low_res = self._model_flags, low_res_of(batch)
        mean, variance, quantiles = predict(flags, output, low_res)
        if quantiles is not None:
            quantiles, crossed = rearranged(quantiles)
            self.logger.add("crossed_levels", crossed)
            if flags.num_outputs > 1:
                mean, variance = normal_moments(quantiles, flags.levels)
        for i, name in enumerate(batch_kwargs.name):
            self._results.save_low_res(name, low_res[i], output.shape[2:])
            if variance is not None:
                files = [f"high_res_mean_{self._step}.{kind}" for kind in ("png", "npy")]
                save_mean(self._results, name, (files[0], files[1]), mean[i])
                save_spread(self._results, name, self._spread_files, variance[i])
            if quantiles is not None:
                self._write_quantiles(name, quantiles[i], batch_kwargs.high_res[i])

    def _write_quantiles(self, name: str, quantiles: Tensor, high_res: Tensor) -> None:
        levels, errors = self._model_flags.levels, {}
        exact: Sequence[Tensor | None] = [None] * len(levels)
        if self._exact is not None:
            exact = list(self._exact.of(high_res, name, levels))
        label_255, judged = to_hwc(image_to_255(high_res)), self._judged(name)
        for level, quantile, true in zip(levels, quantiles, exact, strict=True):
            path = self._results.path(name, quantile_file(level, self._step))
            require_finite(quantile, path)
            quantile_255 = to_hwc(image_to_255(quantile))
            save_array(path, self._results.units.from_255(quantile_255))
            exact_255 = None if true is None else to_hwc(image_to_255(true))[judged]
            found = quantile_errors(quantile_255[judged], label_255[judged], exact_255)
            errors[number_name(level)] = found
        write_json_atomic(self._results.path(name, self._results.file_names[-1]), errors)

    def _judged(self, name: str) -> Any:
        """The pixels of an image that quantiles are judged by: hidden ones, if X hides some."""
        hidden = self._results.hidden([name])
        return ... if hidden is None or not hidden.any() else hidden[0, 0].numpy()


@dataclass(frozen=True)
class ExactQuantiles:
    """The oracle's quantiles given what the networks see of a test image.

    Attributes:
        sizes: of Y and of the low-res image.
        seed: of the test, of which X is a function.
        seen: what is seen beside the low-res image; None: nothing.
    """

    sizes: tuple[Size, Size]
    seed: int = 0
    seen: Observation | None = None

    @classmethod
    def of_test(cls, flags: BaselineModelFlags, test: BaselineTestFlags) -> ExactQuantiles | None:
        """Those that `--truth oracle` asks for; ValueError where the law is not known."""
        if test.truth != "oracle":
            return None
        seen = Observation.parse(flags.degradation, factor_of(flags))
        return cls(flags.sizes, test.seed, seen)

    def of(self, high_res: Tensor, name: str, levels: Sequence[float]) -> Tensor:
        """By level, (Q, C, H, W) in float64, of the image Y (C, H, W) of that name.

        X of an 8-bit Y is off by the rounding: about 0.3/f grey levels.
        """
        from oracle.law import oracle_law

        y = high_res[None].double().cpu()
        low_res = area_downsample(y, self.sizes[1])
        law = oracle_law(low_res, y.shape[-1] // low_res.shape[-1])
        if self.seen is not None:
            law = self.seen.law_given(law, self.seen.see(y, name, self.seed))
        return torch.cat([law.quantile(level) for level in levels])


def report_quantiles(
    results: ResultFolder, entries: Sequence[Entry], step: int, log: Callable[[str], None]
) -> Errors:
    """Average the errors of all images, log them, write `quantile_results_<step>.json`.

    Errors that are damaged, or of other levels than another image's, are a DataError.
    """
    file_name = results.file_names[-1]
    paths = [results.path(entry.name, file_name) for entry in entries]
    # a damaged image that was to be skipped has none
    remedy = "delete it and run sr_baseline_test.py again"
    by_image = [read_record(path, remedy, _errors) for path in paths if os.path.exists(path)]
    if not by_image:
        return {}
    try:
        summary = summarise_errors(by_image)
    except KeyError:
        raise DataError(
            f"{results.output_dir}: the files {file_name} are not of one test; delete them and run "
            "sr_baseline_test.py again"
        ) from None
    for level, errors in summary.items():
        told = f"level {level}: {errors['coverage']:.4f} of the real values lie below"
        if "rms_error" in errors:
            told += f"; {errors['rms_error']:.3f} grey levels rms from the exact quantile"
        log(told)
    path = os.path.join(results.output_dir, f"quantile_results_{step}.json")
    write_json_atomic(path, {"num_images": len(by_image), "levels": summary})
    return summary


def _errors(content: JsonObject) -> Errors:
    if not content:
        raise ValueError("no metrics by level")
    for row in content.values():
        require_numbers([row["coverage"], *row.values()])
    return content
