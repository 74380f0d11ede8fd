"""The error budget on the oracle: which part of the pipeline loses how much, against the truth.

Six rows (docs/oracle.md): the mean net; the variance net given the exact mean, and as it is; the
sampler with the exact denoiser and with a trained one; the noise of a hundred exact samples.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from ddpm.flags import DiffusionFlags, ScheduleFlags
from ddpm.process import create_diffusion
from ddpm.sampling import SETTINGS_FILE
from diffusion.samplers import SamplerOptions, gaussian_noise_fn, sample_loop
from oracle.denoiser import ExactDenoiser
from sr_var.base_dataset import load_entries
from sr_var.data.oracle_observed import OBSERVED_FILE, Observation
from sr_var.flags.verify import BudgetFlags
from sr_var.results.folder import LOW_RES_FILE, is_known_input
from sr_var.results.moments import TRUTH_FILE, Array, Truth
from sr_var.verify.numbers.intervals import Clusters, clusters_of, jackknife_interval, leave_one_out
from sr_var.verify.numbers.metrics import signed_root
from sr_var.verify.read.images import ImageData, load_image_data, load_reference
from sr_var.verify.read.records import (
    BUDGET_ERRORS,
    BudgetRow,
    classes_given,
    given_class,
    require_one_origin,
    units_of,
)
from sr_var.verify.read.seen import observation_of, view_of
from utils.images.files import open_image, safe_join
from utils.images.listing import Entry
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
    """Sums over pixels of one estimate's errors; nan for what it has not.

    Σ (m − μ)² and Σ (v̂ − t)², less what Monte-Carlo noise adds; Σ v̂; Σ t, of what v̂ is compared
    with.
    """

    mean_square: float
    var_square: float
    var_sum: float
    target_sum: float


@dataclass(frozen=True)
class Law:
    """Sums over the pixels of an image whose law is known: Σ v and Σ v²."""

    variance: float
    square: float

    @classmethod
    def of(cls, truth: Truth) -> Law:
        """Of the law's moments."""
        return cls(float(truth.variance.sum()), float((truth.variance**2).sum()))


def mean_net_errors(mean: Array, truth: Truth) -> Errors:
    """Of m̂ alone."""
    return Errors(float(((mean - truth.mean) ** 2).sum()), math.nan, math.nan, math.nan)


def var_net_errors(variance: Array, target: Array) -> Errors:
    """Of v̂, negative values set to 0, against a target variance."""
    v = np.maximum(variance, 0)
    return Errors(math.nan, float(((v - target) ** 2).sum()), float(v.sum()), float(target.sum()))


def sampler_errors(moments: Moments, truth: Truth) -> Errors:
    """Of a sampler's own law: x̄ and k₂ without the noise k₂/n and Var(k₂) of n samples."""
    mean_square = (moments.mean - truth.mean) ** 2 - moments.variance / moments.count
    var_square = (moments.variance - truth.variance) ** 2 - moments.variance_of_variance
    sums = (mean_square, var_square, moments.variance, truth.variance)
    return Errors(*(float(part.sum()) for part in sums))


def monte_carlo_errors(truth: Truth, num_samples: int) -> Errors:
    """Of the moments of n exact samples, expected: v/n and μ₄/n − v²(n − 3)/(n(n − 1))."""
    n, v = num_samples, truth.variance
    scatter = truth.fourth / n - v**2 * ((n - 3) / (n * (n - 1)))
    total = float(v.sum())
    return Errors(total / n, float(scatter.sum()), total, total)


class ExactSampler:
    """Draws from the oracle's law by the diffusion sampler with the exact denoiser.

    `factor`: high-res pixels along the side of a low-res one. The law is that of the exact samples:
    given the label of the image, too, where they are (`oracle_data.py --num_classes`), and what is
    `seen` beside the low-res image (`oracle_data.py --degradation`).
    """

    def __init__(self, flags: BudgetFlags, factor: int, seen: Observation | None = None) -> None:
        schedule = {field.name: getattr(flags, field.name) for field in fields(ScheduleFlags)}
        process_flags = DiffusionFlags(predict_xstart=True, **schedule)
        self.process = create_diffusion(process_flags)
        longer = create_diffusion(replace(process_flags, timestep_respacing=""))
        self._denoiser = ExactDenoiser(torch.from_numpy(longer.coefficients.alphas_cumprod), factor)
        self._flags, self._seen = flags, seen
        self._num_classes = classes_given(flags.ddpm_sr_output_dir)

    def moments(self, entry: Entry, low_res: torch.Tensor) -> Moments:
        """Moments of the samples of one image (1, 3, h, h), HWC grey levels."""
        flags, num, name = self._flags, self._flags.num_samples, entry.name
        law = self._denoiser.law(low_res)
        if self._num_classes:
            law = law.given_class(entry.y, self._num_classes)
        if self._seen is not None:
            folder = safe_join(flags.ddpm_sr_output_dir, name)
            x = self._seen.seen_in(folder)
            if x is None:
                raise DataError(
                    f"{folder}/{OBSERVED_FILE} does not exist; give the --sample_dir of "
                    f"oracle_data.py --degradation '{self._seen.words}' as --ddpm_sr_output_dir"
                )
            law = self._seen.law_given(law, x)
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
    """The rows of one image; of its hidden pixels where X shows the others (`ImageData.judged`)."""
    folder, truth = safe_join(flags.ddpm_sr_output_dir, entry.name), data.judged_truth
    if truth is None:
        raise DataError(
            f"{folder}/{TRUTH_FILE} does not exist; give the --sample_dir of oracle_data.py as "
            "--ddpm_sr_output_dir"
        )
    low_res_uint8 = np.asarray(open_image(os.path.join(folder, LOW_RES_FILE)))
    low_res = bytes_to_image(torch.from_numpy(low_res_uint8.transpose(2, 0, 1).copy()))[None]
    mean, variance = data.judged(data.mean, data.variance)
    own_target = truth.variance + (mean - truth.mean) ** 2  # docs/theory.md, eq. 4
    rows = {
        MEAN_NET: mean_net_errors(mean, truth),
        VAR_NET_EXACT: var_net_errors(variance, own_target),
        VAR_NET: var_net_errors(variance, truth.variance),
        EXACT_SAMPLER: sampler_errors(_judged(sampler.moments(entry, low_res), data), truth),
    }
    if flags.trained_output_dir:
        trained = safe_join(flags.trained_output_dir, entry.name)
        if os.path.exists(os.path.join(flags.trained_output_dir, SETTINGS_FILE)):
            assert data.low_res is not None
            is_known_input(os.path.join(trained, LOW_RES_FILE), data.low_res)
        side, num_threads = flags.large_size, chosen_threads(flags.num_threads)
        found = load_reference(trained, flags.num_samples, side, side, num_threads=num_threads)
        rows[TRAINED_SAMPLER] = sampler_errors(_judged(found.moments, data), truth)
    rows[MONTE_CARLO.format(flags.num_samples)] = monte_carlo_errors(truth, flags.num_samples)
    return rows


def _judged(moments: Moments, data: ImageData) -> Moments:
    parts = moments.mean, moments.m2, moments.m3, moments.m4
    return Moments(moments.count, *data.judged(*parts))


def error_budget(flags: BudgetFlags, log: Callable[[str], None]) -> list[BudgetRow]:
    """The rows of all images together.

    Of each: `relative_mse` mean (m − μ)² / mean v, `relative_var_error` √(mean (v̂ − t)² / mean
    v²) and `var_bias` mean v̂ / mean t − 1, t what the row is compared with; None where a row has
    no such error. Estimates of squares may be below 0, and then their root is minus that of −x.
    """
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    require_one_origin(flags, log)
    given_class(flags, log)
    units = units_of(flags)
    seen = observation_of(view_of(flags, units))
    if flags.dry_run:
        entries = entries[:1]
    sampler: ExactSampler | None = None
    found: list[dict[str, Errors]] = []
    laws: list[Law] = []
    with working(len(entries), "sampling", "image", remedy=ANEW) as job:
        for entry in entries:
            data = load_image_data(entry, flags, units=units)
            if sampler is None:
                assert data.low_res is not None
                sampler = ExactSampler(flags, data.mean.shape[0] // data.low_res.shape[0], seen)
                log(f"{sampler.process.num_timesteps} steps of {flags.sampler} a sample")
            found.append(image_budget(entry, data, sampler, flags))
            assert data.judged_truth is not None
            laws.append(Law.of(data.judged_truth))
            job.done()
    clusters = clusters_of(entries, flags.cluster)
    log(clusters.section()["text"])
    return budget_rows(found, laws, clusters)


def budget_rows(
    found: Sequence[Mapping[str, Errors]], laws: Sequence[Law], clusters: Clusters
) -> list[BudgetRow]:
    """The rows of all images together, of the errors and the law of each.

    The 95 % intervals are over the units of `clusters`; None where these are too few.
    """
    parts = [field.name for field in fields(Errors)]
    sums = {
        f"{name}.{part}": np.array([getattr(image[name], part) for image in found])
        for name in found[0]
        for part in parts
    }
    for part in ("variance", "square"):
        sums[part] = np.array([getattr(law, part) for law in laws])
    values = _metrics({name: image.mean(keepdims=True) for name, image in sums.items()})
    replicates = leave_one_out(sums, _metrics, clusters) if clusters.is_enough else {}
    return [_row(name, values, replicates) for name in found[0]]


def _metrics(sums: Mapping[str, Array]) -> dict[str, Array]:
    """By row and metric, from sums over pixels; `relative_var_error` before its root is taken."""
    metrics: dict[str, Array] = {}
    for name in {dotted.rpartition(".")[0] for dotted in sums if "." in dotted}:
        square, bias = sums[f"{name}.var_square"], sums[f"{name}.var_sum"]
        metrics |= {
            f"{name}.relative_mse": sums[f"{name}.mean_square"] / sums["variance"],
            f"{name}.relative_var_error": square / sums["square"],
            f"{name}.var_bias": bias / sums[f"{name}.target_sum"] - 1,
        }
    return metrics


def _row(name: str, values: Mapping[str, Array], replicates: Mapping[str, Array]) -> BudgetRow:
    def rooted(key: str, ends: Sequence[float]) -> list[float]:
        """An estimate of a square below 0 stays negative."""
        return [
            float(signed_root(np.float64(e))) if key == "relative_var_error" else e for e in ends
        ]

    def value(key: str) -> float | None:
        found = rooted(key, [float(values[f"{name}.{key}"][0])])[0]
        return found if math.isfinite(found) else None

    def interval(key: str) -> list[float] | None:
        dotted = f"{name}.{key}"
        if dotted not in replicates:
            return None
        found = jackknife_interval(float(values[dotted][0]), replicates[dotted], 0.95)
        return found and rooted(key, found)

    return {
        "row": name,
        "relative_mse": value("relative_mse"),
        "relative_var_error": value("relative_var_error"),
        "var_bias": value("var_bias"),
        "intervals": {key: interval(key) for key in BUDGET_ERRORS},
    }
