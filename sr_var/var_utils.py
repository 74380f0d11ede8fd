"""The conditional variance: training and testing of v(x) ≈ Var[Y | X = x].

The target is the squared residual (Y − m̂(X))² of a frozen mean net; its conditional mean is the
variance plus the squared error of m̂ (docs/theory.md, eq. 4). The same holds of any linear
functional of the image, whose residual is that functional of Y − m̂(X) (eq. 58).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm.train_loop import NamesClasses
from sr_var.data.folds import CrossFit, FoldedInput, FoldedMean
from sr_var.data.label_noise import LABEL_NOISE_KEY, label_noise_state
from sr_var.data.pairs import Photographs
from sr_var.data.validation import calibration_of
from sr_var.degradation import NetInput, image_of, low_res_of, mean_of, variance_of
from sr_var.flags.nets import ITAKURA_SAITO, SQUARED_ERROR
from sr_var.functionals import PIXELS, Functional
from sr_var.losses import itakura_saito
from sr_var.mean_module import RestoredMean
from sr_var.results.folder import AS_BEFORE, PICTURES_IN_STRIP, ResultFolder, strip
from sr_var.results.spread import save_spread, spread_files
from sr_var.stored_flags import refuse_other_setting
from sr_var.values import GREY_LEVELS, Units
from utils.files.atomic import JsonObject
from utils.files.records import shown
from utils.flags.groups import Reading
from utils.loops.data import batch_slice
from utils.process.errors import CheckpointError
from utils.test_util import TestLoop

# of the mean nets' digests in a checkpoint's state
MEAN_KEY = "mean_models"
# the function in the place of a mean net, whose file's sha256 then is the digest
MODULE_KEY = "mean_module"


def check_loss(loss: str, last_layer_type: str) -> None:
    """Refuse a loss that divides by what may be 0 or negative."""
    if loss == ITAKURA_SAITO and last_layer_type == "none":
        raise ValueError(
            f"--loss {ITAKURA_SAITO} divides by the variance; give --last_layer_type softplus "
            "(or exp, sigmoid), which keeps it positive"
        )


def with_mean(
    mean_model: torch.nn.Module, net_input: NetInput | FoldedInput, size: Sequence[int]
) -> tuple[NetInput, Tensor]:
    """What the variance net sees: the low-res image and the frozen net's mean, (N, 3, *size).

    `net_input`: (N, 3, h, w) low-res images, with labels where the nets know classes; with their
    folds, each meets its net (`FoldedMean`).
    """
    with torch.inference_mode():
        if isinstance(net_input, FoldedInput):
            assert isinstance(mean_model, FoldedMean)
            mean, net_input = mean_model.of_folds(net_input, size), net_input.low_res
        else:
            mean = mean_of(mean_model, net_input, size)
    return net_input, mean.to(low_res_of(net_input).dtype)


def require_same_mean(
    state: JsonObject, mean_digests: Sequence[str], what: str, module: str = ""
) -> None:
    """Refuse a mean net that `what`, a variance net, was not trained on.

    Its `state` is stored with it; one of another tool or version says nothing. `mean_digests`, the
    sha256 of files, are of the mean net that is given, or of those of all folds; `module` is the
    function of `--mean_module`, of which a file may have several.
    """
    stored: list[str] = state.get(MEAN_KEY) or []
    # one net of all images may stand in for those of the folds (docs/theory.md, section 4)
    is_stand_in = len(stored) > 1 == len(mean_digests)
    made = str(state.get(MODULE_KEY, ""))
    is_same = list(mean_digests) == stored and made.partition(":")[2] == module.partition(":")[2]
    if not stored or not mean_digests or is_stand_in or is_same:
        return
    trained_on = f", --mean_module {shown(made)}," if made else ""
    there, here = (" ".join(str(digest)[:12] for digest in side) for side in (stored, mean_digests))
    raise CheckpointError(
        f"{what} was trained on the residuals of another mean net{trained_on} (sha256 {there}) "
        f"than that of --mean_model_path or --mean_module ({here}), and knows nothing of the error "
        "of this one; give the mean net, or the module as it was, that it was trained on"
    )


class SRVarTrainLoop(NamesClasses):
    """Squared error, or another loss with its minimiser, against the mean net's squared residual.

    `mean_model` is frozen here, in evaluation mode; `loss` is `squared_error` or, for a positive
    model, `itakura_saito`; the variance is that of the `functional`, by default of the pixels.
    Stored with the checkpoints: `cross_fit`, whose residuals the data ask for, `label_noise`, the
    std of the labels' noise in grey levels, and `mean_digests`, the sha256 of the mean net's file
    (of each fold's), since the variance is that of this mean's residuals. Batch and label as for
    the mean net.
    """

    def __init__(
        self,
        *,
        mean_model: torch.nn.Module,
        loss: str = SQUARED_ERROR,
        functional: Functional = PIXELS,
        cross_fit: CrossFit | None = None,
        mean_digests: Sequence[str] = (),
        label_noise: float = 0.0,
        **rest: Any,
    ) -> None:
        self._label_noise = label_noise
        self._loss, self._cross_fit = loss, cross_fit.record() if cross_fit else None
        self.functional = functional
        self._mean_digests = list(mean_digests)
        self._mean_module = mean_model.name if isinstance(mean_model, RestoredMean) else ""
        super().__init__(**rest)
        self.mean_model = mean_model.to(self.device).eval().requires_grad_(False)

    def compute_loss(
        self, micro_input: NetInput | FoldedInput, micro_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Mean of (v(x, m̂(x)) − r²)², r = A(y − m̂(x)); or of the Itakura–Saito loss of v and r²."""
        output, square = self._variance_and_square(micro_input, micro_label)
        return self._loss_of(output, square), output

    def _variance_and_square(
        self, net_input: NetInput | FoldedInput, label: Tensor
    ) -> tuple[Tensor, Tensor]:
        shown, mean = with_mean(self.mean_model, net_input, label.shape[2:])
        variance = variance_of(self.wrapped_model, shown, mean)
        return self.functional.at_places(variance), self.functional(label - mean).square()

    def _loss_of(self, output: Tensor, square: Tensor) -> Tensor:
        loss = itakura_saito if self._loss == ITAKURA_SAITO else torch.nn.functional.mse_loss
        return loss(output.float(), square)

    def judge(self, batch: NetInput | FoldedInput, label: Tensor) -> dict[str, Tensor]:
        """The loss, and `z2` and `nll` of the normal law with the mean net's mean."""
        output, square = self._variance_and_square(batch, label)
        return {"loss": self._loss_of(output, square), **calibration_of(square, output)}

    def extra_state(self) -> JsonObject:
        """What the weights depend on beside the flags of the network."""
        own = {"loss": self._loss, "cross_fit": self._cross_fit, MEAN_KEY: self._mean_digests}
        own |= {MODULE_KEY: self._mean_module} if self._mean_module else {}
        return {**super().extra_state(), **own, **label_noise_state(self._label_noise)}

    def load_extra_state(self, state: JsonObject) -> None:
        """Refuse to go on with another loss, other residuals or other classes."""
        super().load_extra_state(state)
        refuse_other_setting(state, "loss", self._loss, before=SQUARED_ERROR)
        refuse_other_setting(state, "cross_fit", self._cross_fit)
        refuse_other_setting(state, LABEL_NOISE_KEY, self._label_noise, before=0.0)
        require_same_mean(state, self._mean_digests, "the run to resume", self._mean_module)

    def _post_process(
        self,
        micro_input: NetInput | FoldedInput,
        micro_label: Tensor,
        micro_output: Tensor,
        i: int,
    ) -> None:
        if i == 0 and self.is_image_step:
            label = micro_label[:PICTURES_IN_STRIP]
            shown = batch_slice(micro_input, 0, PICTURES_IN_STRIP)
            shown, mean = with_mean(self.mean_model, shown, label.shape[2:])
            error = self.functional(label - mean).abs()
            std = micro_output[:PICTURES_IN_STRIP].float().clamp(min=0).sqrt()
            scale = torch.maximum(error.max(), std.max()).clamp(min=1e-6) / 2
            picture = strip(image_of(shown, error), std / scale - 1, error / scale - 1)
            self.logger.image("low_res | std | abs_error", picture, self.step)


def var_result_folder(
    output_dir: str,
    step: int,
    *paths: str,
    reading: Reading = AS_BEFORE,
    units: Units = GREY_LEVELS,
    functional: Functional = PIXELS,
    has_array: bool = False,
) -> ResultFolder:
    """The variance net's files; the variance comes last and makes an image done.

    `paths` are its checkpoint (those of an ensemble) and then those of the mean nets. That of a
    functional has other names, with it in them, as pixels' variances have theirs. `has_array`:
    whether it is an array, too (`--var_npy`).
    """
    kind, of = (
        ("var", "high_res") if not functional.text else (f"functional_{functional.slug}",) * 2
    )
    files = spread_files(step, of, has_array=has_array)
    return ResultFolder(output_dir, kind, step, files, paths, reading, units)


class SRVarTestLoop(TestLoop):
    """Writes the variance of every image, and its std; see `sr_var.results.spread.save_spread`."""

    def __init__(
        self,
        *,
        mean_model: torch.nn.Module,
        results: ResultFolder,
        functional: Functional = PIXELS,
        **rest: Any,
    ) -> None:
        super().__init__(**rest)
        self.mean_model = mean_model.to(self.device).eval()
        self._results, self.functional = results, functional

    def forward(self, batch: NetInput, batch_kwargs: Photographs) -> Tensor:
        """The variance in units of [-1, 1] squared, (N, 3, H, W), or one a functional's value."""
        size = batch_kwargs.high_res.shape[2:]
        variance = variance_of(self.model, *with_mean(self.mean_model, batch, size))
        return self.functional.at_places(variance)

    def _post_process(self, batch: NetInput, output: Tensor, batch_kwargs: Photographs) -> None:
        low_res = low_res_of(batch)
        for i, name in enumerate(batch_kwargs.name):
            self._results.save_low_res(name, low_res[i], batch_kwargs.high_res.shape[2:])
            save_spread(self._results, name, self._results.file_names, output[i])
