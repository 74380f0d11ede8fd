"""The leading principal components of each low-res pixel's block, and their variances.

A block is what a low-res pixel becomes: its f×f pixels in C channels, as a vector of D = C·f²
values. Its covariance given the low-res image has the leading eigenvectors w_1, w_2, … and
eigenvalues λ_1 ≥ λ_2 ≥ …; with e the block of the residual Y − m̂(X), for k = 1, 2, …

    w_k(x) = argmax E[ (w·e)² | X = x ]   over w of length 1, orthogonal to those before it
    λ_k(x) = E[ (w_k(x)·e)² | X = x ]                                (docs/theory.md, eq. 60, 57)

Both minimise a conditional risk, as in Nehme et al. 2023 (arXiv 2309.15533), who do it for whole
images. The network, a sub-pixel variance net of K·(C + 1) output channels, returns K images whose
blocks, made orthogonal one after the other, point along w_k, and K maps whose block means are
log(λ_k / 0.1).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from sr_var.data.folds import FoldedInput
from sr_var.data.pairs import Photographs
from sr_var.degradation import NetInput, low_res_of, variance_of
from sr_var.flags.nets import SQUARED_ERROR
from sr_var.flags.scripts import VarModelFlags
from sr_var.functionals import Functional, num_components
from sr_var.losses import VARIANCE_FLOOR, itakura_saito
from sr_var.results.folder import PICTURES_IN_STRIP, ResultFolder, save_array, strip
from sr_var.values import Units
from sr_var.var_utils import (
    SRVarTestLoop,
    SRVarTrainLoop,
    check_loss,
    var_result_folder,
    with_mean,
)
from utils.flags.groups import Reading
from utils.images.pictures import write_picture
from utils.images.pixels import require_finite
from utils.loops.data import batch_slice
from utils.metrics import HALF_RANGE_255

_TINY = 1e-12
# λ_k where the network says 0: of 16 pixels whose std is 10 grey levels
_USUAL_VARIANCE = 0.1


def blocks_of(images: Tensor, factor: int) -> Tensor:
    """(…, C, f·h, f·w) to (…, C·f², h, w): the vector of each low-res pixel's block."""
    return F.pixel_unshuffle(images, factor)


def components_of(output: Tensor, factor: int, channels: int) -> tuple[Tensor, Tensor]:
    """Directions and variances of a network's output, (N, K·(C + 1), f·h, f·w).

    The directions are made orthogonal one after the other, by Gram and Schmidt; those before are
    constants to the gradient of the next ones.

    Args:
        output: of the network: K images, then K maps.
        factor: f, pixels along the side of a block.
        channels: C.

    Returns:
        (N, K, C·f², h, w) of length 1, and (N, K, h, w) in the unit of images in [-1, 1] squared.
    """
    number = output.shape[1] // (channels + 1)
    images, maps = torch.split(output.float(), [number * channels, number], dim=1)
    images = images.reshape(len(output), number, channels, *output.shape[2:])
    directions: list[Tensor] = []
    for block in blocks_of(images, factor).unbind(dim=1):
        for before in directions:
            fixed = before.detach()
            block = block - (block * fixed).sum(dim=1, keepdim=True) * fixed
        length = (block.square().sum(dim=1, keepdim=True) + _TINY).sqrt()
        directions.append(block / length)
    return torch.stack(directions, dim=1), _USUAL_VARIANCE * F.avg_pool2d(maps, factor).exp()


def scaled_components(output: Tensor, factor: int, channels: int) -> Tensor:
    """√λ_k w_k, (N, K, C, f·h, f·w), of a network's output (`components_of`)."""
    directions, variances = components_of(output, factor, channels)
    return F.pixel_shuffle(directions * variances.sqrt()[:, :, None], factor)


def component_losses(
    directions: Tensor, variances: Tensor, residual: Tensor
) -> tuple[Tensor, Tensor]:
    """What directions and variances minimise; residual (N, C·f², h, w), the rest as above.

    Minus the energy (w_k·e)² that the directions capture, over the smallest of the variances, a
    weight that does not depend on the residual; and the Itakura–Saito loss of the variances against
    that energy. Weight and energy there are constants to the gradient. Means over items and blocks.
    """
    energy = (directions * residual[:, None]).sum(dim=2).square()
    weight = 1.0 / (variances[:, -1:].detach() + VARIANCE_FLOOR)
    return -(weight * energy).mean(), itakura_saito(variances, energy.detach())


class SRComponentsTrainLoop(SRVarTrainLoop):
    """The sum of both losses (`component_losses`) against the mean net's residual."""

    def compute_loss(
        self, micro_input: NetInput | FoldedInput, micro_label: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Minus the captured energy, and the loss of the variances; with the network's output."""
        shown, mean = with_mean(self.mean_model, micro_input, micro_label.shape[2:])
        output = variance_of(self.wrapped_model, shown, mean)
        factor = mean.shape[-1] // low_res_of(shown).shape[-1]
        parts = components_of(output, factor, mean.shape[1])
        captured, spread = component_losses(*parts, blocks_of(micro_label - mean, factor))
        return captured + spread, output

    def judge(self, batch: NetInput | FoldedInput, label: Tensor) -> dict[str, Tensor]:
        """The loss alone: components are no law of a pixel."""
        return {"loss": self.compute_loss(batch, label)[0]}

    def _post_process(
        self,
        micro_input: NetInput | FoldedInput,
        micro_label: Tensor,
        micro_output: Tensor,
        i: int,
    ) -> None:
        if i == 0 and self.is_image_step:
            shown = batch_slice(micro_input, 0, PICTURES_IN_STRIP)
            shown, mean = with_mean(self.mean_model, shown, micro_label.shape[2:])
            factor = mean.shape[-1] // low_res_of(shown).shape[-1]
            output = micro_output[:PICTURES_IN_STRIP]
            leading = scaled_components(output, factor, mean.shape[1])[:, 0]
            error = micro_label[:PICTURES_IN_STRIP] - mean
            scale = torch.maximum(error.abs().max(), leading.abs().max()).clamp(min=_TINY)
            picture = strip(low_res_of(shown), leading / scale, error / scale)
            self.logger.image("low_res | leading component | error", picture, self.step)


class SRComponentsTestLoop(SRVarTestLoop):
    """Writes the components of every image, each as long as its std, and shows what they do."""

    def forward(self, batch: NetInput, batch_kwargs: Photographs) -> Tensor:
        """The mean and √λ_k w_k, (N, K + 1, C, H, W), of images in [-1, 1]."""
        shown, mean = with_mean(self.mean_model, batch, batch_kwargs.high_res.shape[2:])
        output = variance_of(self.model, shown, mean)
        factor = mean.shape[-1] // low_res_of(shown).shape[-1]
        images = scaled_components(output, factor, mean.shape[1])
        return torch.cat([mean[:, None].float(), images], dim=1)

    def _post_process(self, batch: NetInput, output: Tensor, batch_kwargs: Photographs) -> None:
        png_file, npy_file = self._results.file_names
        low_res = low_res_of(batch)
        for i, name in enumerate(batch_kwargs.name):
            mean, components = output[i, :1], output[i, 1:]
            npy_path = self._results.path(name, npy_file)
            require_finite(components, npy_path)
            self._results.save_low_res(name, low_res[i], output.shape[3:])
            rows = strip(*((mean + by * components).clamp(-1, 1) for by in (-1, 0, 1)))
            write_picture(self._results.path(name, png_file), rows)
            values_255 = components.permute(0, 2, 3, 1).cpu().numpy() * HALF_RANGE_255
            save_array(npy_path, self._results.units.spread_from_255(values_255, 1))


def train_loop_of(flags: VarModelFlags, loss: str) -> Callable[..., SRVarTrainLoop]:
    """What makes the loop of a network for the `--functional` of its flags, with that `--loss`.

    Raises:
        ValueError: the loss does not fit the last layer or the functional.
    """
    if not num_components(flags.functional):
        check_loss(loss, flags.last_layer_type)
        return partial(SRVarTrainLoop, loss=loss, functional=Functional.parse(flags.functional))
    if loss != SQUARED_ERROR:
        raise ValueError(f"--functional {flags.functional} has losses of its own: leave --loss out")
    return SRComponentsTrainLoop


def tested_loop_of(
    flags: VarModelFlags,
) -> tuple[Callable[..., SRVarTestLoop], Callable[..., ResultFolder]]:
    """What makes the loop of its test, and the folder of its results (`var_result_folder`)."""
    number = num_components(flags.functional)
    if number:
        return SRComponentsTestLoop, partial(_result_folder, f"functional_pc_{number}")
    functional = Functional.parse(flags.functional)
    make_folder = partial(var_result_folder, functional=functional)
    return partial(SRVarTestLoop, functional=functional), make_folder


def _result_folder(
    kind: str,
    output_dir: str,
    step: int,
    *paths: str,
    reading: Reading,
    units: Units,
    has_array: bool = False,
) -> ResultFolder:
    if has_array:
        raise ValueError(
            "--var_npy True is for variances; components (--functional pc:K) are .npy files "
            "without it: leave it out"
        )
    files = (f"{kind}_{step}.png", f"{kind}_{step}.npy")
    return ResultFolder(output_dir, kind, step, files, paths, reading, units)
