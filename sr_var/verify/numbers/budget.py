"""The error budget on the oracle: which part of the pipeline loses how much, against the truth.

Six rows (docs/oracle.md): the mean net; the variance net given the exact mean, and as it is; the
sampler with the exact denoiser and with a trained one; the noise of a hundred exact samples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
import torch

from ddpm.flags import DiffusionFlags, ScheduleFlags
from ddpm.process import create_diffusion
from ddpm.sampling import SETTINGS_FILE
from diffusion.samplers import SamplerOptions, gaussian_noise_fn, sample_loop
from oracle.denoiser import ExactDenoiser
from sr_var.base_dataset import load_entries
from sr_var.flags.verify import BudgetFlags
from sr_var.results.folder import LOW_RES_FILE, is_known_input
from sr_var.results.moments import TRUTH_FILE, Array, Truth
from sr_var.verify.read.images import ImageData, load_image_data, load_reference
from sr_var.verify.read.records import BudgetRow, require_one_origin
from utils.images.dataset import Entry
from utils.images.files import open_image, safe_join
from utils.images.pixels import bytes_to_image, image_to_255, to_hwc
from utils.machine.threads import chosen_threads
from utils.metrics import Moments
from utils.process.errors import DataError
from utils.process.stop import ANEW
from utils.runs.job import working
from utils.seeds import stable_seed

MEAN_NET = "mean net"
VAR_NET_EXACT = "variance net, given the exact mean"
VAR_NET = "variance net, given the mean net"
EXACT_SAMPLER = "sampler with the exact denoiser"
TRAINED_SAMPLER = "sampler with the trained denoiser"
MONTE_CARLO = "Monte-Carlo noise of {} exact samples"


@dataclass(frozen=True)
class Errors:
    """Sums over pixels of one estimate's errors; nan for a part that it has not.

    Σ (m − μ)² and Σ (v̂ − v)², less what Monte-Carlo noise adds; Σ v̂.
    """

    mean_square: float
    var_square: float
    var_sum: float

    def __add__(self, other: Errors) -> Errors:
        sums = (a + b for a, b in zip(astuple(self), astuple(other), strict=True))
        return Errors(*sums)


def mean_net_errors(mean: Array, truth: Truth) -> Errors:
    """Of m̂ alone."""
    return Errors(float(((mean - truth.mean) ** 2).sum()), math.nan, math.nan)


def var_net_errors(variance: Array, target: Array) -> Errors:
    """Of v̂, negative values set to 0, against a target variance."""
    v = np.maximum(variance, 0)
    return Errors(math.nan, float(((v - target) ** 2).sum()), float(v.sum()))


def sampler_errors(moments: Moments, truth: Truth) -> Errors:
    """Of a sampler's own law: x̄ and k₂ without the noise k₂/n and Var(k₂) of n samples."""
    mean_square = (moments.mean - truth.mean) ** 2 - moments.variance / moments.count
    var_square = (moments.variance - truth.variance) ** 2 - moments.variance_of_variance
    return Errors(float(mean_square.sum()), float(var_square.sum()), float(moments.variance.sum()))


def monte_carlo_errors(truth: Truth, num_samples: int) -> Errors:
    """Of the moments of n exact samples, expected: v/n and μ₄/n − v²(n − 3)/(n(n − 1))."""
    n, v = num_samples, truth.variance
    scatter = truth.fourth / n - v**2 * ((n - 3) / (n * (n - 1)))
    return Errors(float(v.sum()) / n, float(scatter.sum()), float(v.sum()))


class ExactSampler:
    """Draws from the oracle's law by the diffusion sampler with the exact denoiser.

    `factor`: high-res pixels along the side of a low-res one.
    """

    def __init__(self, flags: BudgetFlags, factor: int) -> None:
        schedule = {field.name: getattr(flags, field.name) for field in fields(ScheduleFlags)}
        process_flags = DiffusionFlags(predict_xstart=True, **schedule)
        self.process = create_diffusion(process_flags)
        longer = create_diffusion(replace(process_flags, timestep_respacing=""))
        self._denoiser = ExactDenoiser(torch.from_numpy(longer.coefficients.alphas_cumprod), factor)
        self._flags = flags

    def moments(self, name: str, low_res: torch.Tensor) -> Moments:
        """Moments of the samples of one image (1, 3, h, h), HWC grey levels."""
        flags, num = self._flags, self._flags.num_samples
        law = self._denoiser.law(low_res)
        shape = (num, *law.base.shape[1:])
        seeds = [stable_seed(flags.seed, "budget", name, i) for i in range(num)]
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        x_T, noise_fn = gaussian_noise_fn(generators, shape, "cpu")
        options = SamplerOptions(
            sampler=flags.sampler, clip_denoised=False, model_kwargs={"low_res": law}
        )
        samples = sample_loop(self.process, self._denoiser, x_T, noise_fn, options)
        grey = np.stack([to_hwc(sample) for sample in image_to_255(samples.double())])
        return Moments.from_samples(grey)


def image_budget(
    entry: Entry, data: ImageData, sampler: ExactSampler, flags: BudgetFlags
) -> dict[str, Errors]:
    """The rows of one image."""
    folder, truth = safe_join(flags.ddpm_sr_output_dir, entry.name), data.truth
    if truth is None:
        raise DataError(
            f"{folder}/{TRUTH_FILE} does not exist; give the --sample_dir of oracle_data.py as "
            "--ddpm_sr_output_dir"
        )
    low_res_uint8 = np.asarray(open_image(os.path.join(folder, LOW_RES_FILE)))
    low_res = bytes_to_image(torch.from_numpy(low_res_uint8.transpose(2, 0, 1).copy()))[None]
    own_target = truth.variance + (data.mean - truth.mean) ** 2  # docs/theory.md, eq. 4
    rows = {
        MEAN_NET: mean_net_errors(data.mean, truth),
        VAR_NET_EXACT: var_net_errors(data.variance, own_target),
        VAR_NET: var_net_errors(data.variance, truth.variance),
        EXACT_SAMPLER: sampler_errors(sampler.moments(entry.name, low_res), truth),
    }
    if flags.trained_output_dir:
        trained = safe_join(flags.trained_output_dir, entry.name)
        if os.path.exists(os.path.join(flags.trained_output_dir, SETTINGS_FILE)):
            assert data.low_res is not None
            is_known_input(os.path.join(trained, LOW_RES_FILE), data.low_res)
        side, num_threads = flags.large_size, chosen_threads(flags.num_threads)
        found = load_reference(trained, flags.num_samples, side, side, num_threads=num_threads)
        rows[TRAINED_SAMPLER] = sampler_errors(found.moments, truth)
    rows[MONTE_CARLO.format(flags.num_samples)] = monte_carlo_errors(truth, flags.num_samples)
    return rows


def error_budget(flags: BudgetFlags, log: Callable[[str], None]) -> list[BudgetRow]:
    """The rows of all images together.

    Of each: `relative_mse` mean (m − μ)² / mean v, `relative_var_error` √(mean (v̂ − v)² / mean
    v²) and `var_bias` mean v̂ / mean v − 1; None where a row has no such error.
    """
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    require_one_origin(flags, log)
    if flags.dry_run:
        entries = entries[:1]
    sampler: ExactSampler | None = None
    totals: dict[str, Errors] = {}
    v = v_square = 0.0
    with working(len(entries), "sampling", "image", remedy=ANEW) as job:
        for entry in entries:
            data = load_image_data(entry, flags)
            if sampler is None:
                assert data.low_res is not None
                sampler = ExactSampler(flags, data.mean.shape[0] // data.low_res.shape[0])
                log(f"{sampler.process.num_timesteps} steps of {flags.sampler} a sample")
            for name, errors in image_budget(entry, data, sampler, flags).items():
                totals[name] = totals[name] + errors if name in totals else errors
            assert data.truth is not None
            v += float(data.truth.variance.sum())
            v_square += float((data.truth.variance**2).sum())
            job.done()
    return [_row(name, errors, v, v_square) for name, errors in totals.items()]


def _row(name: str, errors: Errors, v: float, v_square: float) -> BudgetRow:
    square = errors.var_square / v_square
    # an unbiased estimate of a square may come out below 0; nan stays
    rms = math.sqrt(0.0 if square < 0 else square)
    found = (errors.mean_square / v, rms, errors.var_sum / v - 1)
    mse, rms_error, bias = (value if math.isfinite(value) else None for value in found)
    return {"row": name, "relative_mse": mse, "relative_var_error": rms_error, "var_bias": bias}
