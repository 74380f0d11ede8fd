"""The conditional mean: training and testing of the network m(x) ≈ E[Y | X = x]."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ddpm.train_loop import NamesClasses
from sr_var.data.folds import CrossFit
from sr_var.data.label_noise import LABEL_NOISE_KEY, label_noise_state
from sr_var.data.pairs import Batches, Photographs, Seeing, crop_batches, rank_batches
from sr_var.data.validation import psnr_of
from sr_var.degradation import (
    NetInput,
    bilinear_upsample,
    image_of,
    low_res_of,
    mean_of,
    with_labels,
)
from sr_var.degrade.view import Sizes, View
from sr_var.flags.scripts import DataFlags
from sr_var.results.folder import (
    AS_BEFORE,
    LOW_RES_FILE,
    PICTURES_IN_STRIP,
    ResultFolder,
    epistemic_files,
    save_array,
    spread,
    strip,
)
from sr_var.stored_flags import refuse_other_setting
from sr_var.values import GREY_LEVELS, Units
from utils.files.atomic import JsonObject
from utils.flags.groups import Reading
from utils.images.crops.dataset import TestCrops
from utils.images.files import BadImageError
from utils.images.listing import Entry
from utils.images.pixels import image_to_255, save_image, to_hwc
from utils.test_util import TestLoop


class SRMeanTrainLoop(NamesClasses):
    """Squared error against the high-res image, the default of `TrainLoop`: nothing to add.

    Batch: the low-res image, upsampled or not, with its label where the net knows classes; label:
    the high-res image; NCHW in [-1, 1].

    `cross_fit` is what the data leave out; stored with the checkpoints, for the variance training
    to rely on. So is `label_noise`, the std of the labels' noise in grey levels.
    """

    def __init__(
        self, *, cross_fit: CrossFit | None = None, label_noise: float = 0.0, **rest: Any
    ) -> None:
        self._cross_fit = cross_fit.record() if cross_fit else None
        self._label_noise = label_noise
        super().__init__(**rest)

    def extra_state(self) -> JsonObject:
        """The images that this net does not see, and the noise of those that it does."""
        own = {"cross_fit": self._cross_fit, **label_noise_state(self._label_noise)}
        return {**super().extra_state(), **own}

    def load_extra_state(self, state: JsonObject) -> None:
        """Refuse to go on with other images, labels or classes."""
        super().load_extra_state(state)
        refuse_other_setting(state, "cross_fit", self._cross_fit)
        refuse_other_setting(state, LABEL_NOISE_KEY, self._label_noise, before=0.0)

    def compute_loss(self, micro_input: NetInput, micro_label: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of (m(x) − y)² (docs/theory.md, eq. 2)."""
        output = mean_of(self.wrapped_model, micro_input, micro_label.shape[2:])
        return torch.nn.functional.mse_loss(output.float(), micro_label.float()), output

    def judge(self, batch: NetInput, label: Tensor) -> dict[str, Tensor]:
        """The loss, and the PSNR of the mean in dB."""
        loss, mean = self.compute_loss(batch, label)
        return {"loss": loss, "psnr": psnr_of(mean, label)}

    def _post_process(
        self, micro_input: NetInput, micro_label: Tensor, micro_output: Tensor, i: int
    ) -> None:
        if i == 0 and self.is_image_step:
            images = (image_of(micro_input, micro_label), micro_output, micro_label)
            picture = strip(*(image[:PICTURES_IN_STRIP].float() for image in images))
            self.logger.image("low_res | output | target", picture, self.step)


def batches_to_do(
    results: ResultFolder,
    entries: Sequence[Entry],
    batch_size: int,
    flags: DataFlags,
    sizes: Sizes,
    log: Callable[[str], None],
) -> Batches:
    """This rank's batches with images that lack results; a dry run takes all.

    `sizes` are (large, small), or a view; `log` is told what was removed.

    Raises:
        DataError: if the results that are there are of other images of the same names, or as
            `ResultFolder.pending`.
    """
    if flags.dry_run:
        return rank_batches(entries, batch_size)
    results.require_same_reading()  # a clearer word than that the images differ
    if results.has_own_inputs:
        _require_same_inputs(results, spread(entries), flags, sizes)
    return rank_batches(entries, batch_size, results.pending(entries, log))


def _require_same_inputs(
    results: ResultFolder, entries: Sequence[Entry], flags: DataFlags, sizes: Sizes
) -> None:
    view = View.of_sizes(sizes)
    flags = dataclasses.replace(flags, cache_dir="", on_bad_image="error")
    crops = TestCrops.from_flags(entries, view.large, flags, flags.in_channels)
    for i, entry in enumerate(entries):
        with contextlib.suppress(BadImageError, FileNotFoundError):  # so nothing can be said
            if item := crops[i]:
                low_res, high_res = view.pair(item.image[None], [item.name], torch.device("cpu"))
                upsampled = bilinear_upsample(view.image_of(low_res), high_res.shape[2:])
                results.require_same_input(entry.name, upsampled[0])


def regression_test_data(
    batches: Sequence[Sequence[Entry]],
    flags: DataFlags,
    sizes: Sizes,
    *,
    has_labels: bool = False,
) -> Iterator[tuple[NetInput, Photographs]]:
    """(low-res images, what they are of) a batch; with labels if asked for.

    `sizes` are (large, small), or a view.
    """
    view = View.of_sizes(sizes)
    for batch in crop_batches(batches, flags, view.large, Seeing.of(view, has_names=True)):
        # the degradation is computed where the crops are; the loop moves its result
        low_res, high_res = view.pair(batch.image, batch.name, torch.device("cpu"), batch.seen)
        net_input = with_labels(low_res, batch.label if has_labels else None)
        yield net_input, Photographs(batch.name, high_res)


def save_mean(
    results: ResultFolder, name: str, file_names: tuple[str, str], mean: torch.Tensor
) -> None:
    """Write (C, H, W) in [-1, 1] as an 8-bit picture and, unclipped, as float32 in its unit."""
    png_path, npy_path = (results.path(name, file_name) for file_name in file_names)
    save_image(png_path, mean)
    save_array(npy_path, results.units.from_255(to_hwc(image_to_255(mean))))


def mean_result_folder(
    output_dir: str,
    step: int,
    *model_paths: str,
    reading: Reading = AS_BEFORE,
    units: Units = GREY_LEVELS,
) -> ResultFolder:
    """The mean net's files; the float array comes last and makes an image done.

    Of several nets (`sr_var.ensemble`) the variance between them is among the files.
    """
    between = epistemic_files(step) if len(model_paths) > 1 else ()
    files = (LOW_RES_FILE, *between, f"high_res_mean_{step}.png", f"high_res_mean_{step}.npy")
    return ResultFolder(output_dir, "mean", step, files, model_paths, reading, units)


class SRMeanTestLoop(TestLoop):
    """Writes the mean of every image: an 8-bit picture and float32 grey levels, unclipped."""

    def __init__(self, *, results: ResultFolder, **rest: Any) -> None:
        super().__init__(**rest)
        self._results, self._num_pictures = results, 50  # still to come, in TensorBoard

    def forward(self, batch: NetInput, batch_kwargs: Photographs) -> Tensor:
        """The mean, (N, 3, H, W) in [-1, 1]."""
        return mean_of(self.model, batch, batch_kwargs.high_res.shape[2:])

    def _post_process(self, batch: NetInput, output: Tensor, batch_kwargs: Photographs) -> None:
        *_, png_file, npy_file = self._results.file_names
        low_res = image_of(batch, output)
        for i, name in enumerate(batch_kwargs.name):
            mean = output[i].float()  # (3, H, W)
            self._results.save_low_res(name, low_res_of(batch)[i], mean.shape[1:])
            save_mean(self._results, name, (png_file, npy_file), mean)
            if self._num_pictures > 0:
                self._num_pictures -= 1
                images = (low_res[i].cpu(), mean.cpu(), batch_kwargs.high_res[i])
                picture = strip(*(image[None] for image in images))
                tag = f"low_res | mean | high_res/{os.path.basename(name)}"
                self.logger.image(tag, picture, 0)
