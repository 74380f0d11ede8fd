"""What the whole experiment would take here: a few passes are timed, the rest is multiplication.

Weights are random; time does not depend on them. Accuracy is what the noise of n samples leaves at
best, for a normal law: var/n of squared error in the mean, √(2/(n − 1)) of relative rms error in
the variance (docs/theory.md).
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from sr_var.degradation import mean_of, variance_of
from sr_var.degrade.view import degradation_of, factor_of
from sr_var.flags.network import UNET
from sr_var.flags.scripts import (
    PlanFlags,
    SRDiffusionModelFlags,
)
from sr_var.script_util import (
    create_mean_model,
    create_sr_model,
    create_var_model,
    denoiser_flags,
)
from sr_var.verify.numbers.power import Pilot, needs, needs_by_pilot, pilot_text, power_text
from utils.flags.groups import Precision
from utils.loops.networks import cast_to, usable_precision
from utils.machine.cost import find_batch_size
from utils.script_util import AUTO
from utils.sizes import Size, SizeLike

if TYPE_CHECKING:
    from ddpm.flags import DiffusionFlags
    from models.subpixel import SubpixelDenoiser
    from models.unet import SuperResModel

_GB, _BYTES_OF_FLOAT = 1e9, 4
# of a moments.npz (docs/file_formats.md): mean, variance, two central moments
_NUM_MOMENT_MAPS = 4
# pixels: of the images that the constants of the power were measured on
_GRAIN = 4


@dataclass(frozen=True)
class Rates:
    """Measured seconds on one device, an image each: a pass of the upsampler; of the mean net (the
    variance net's is about the same); a training step of each, the latter with a pass of the
    former.
    """

    evaluation: float
    mean_forward: float
    mean_step: float
    var_step: float


def measure(
    network: SRDiffusionModelFlags,
    process: DiffusionFlags,
    flags: PlanFlags,
    device: torch.device,
    say: Callable[[str], None],
) -> Rates:
    """Times the three networks on random images, in the precisions that they would have here."""
    used = usable_precision(network.asked_precision, say)
    trained = usable_precision(network.asked_precision, say, is_trained=True)
    model = create_sr_model(**denoiser_flags(network, process)).to(device).eval()
    cast_to(model, used)
    if flags.batch_size == AUTO:
        found = find_batch_size(lambda size: _evaluation(model, network.sizes, size)(), device, say)
        flags = replace(flags, batch_size=found)
    say(f"timing the upsampler, {flags.batch_size} images a pass")
    evaluation = _median(_evaluation(model, network.sizes, flags.batch_size), flags, device)
    say("timing the mean and the variance net")
    return Rates(evaluation, *_time_nets(network, flags, device, used, trained))


def _evaluation(
    model: SuperResModel | SubpixelDenoiser, sizes: tuple[Size, Size], size: int
) -> Callable[[], object]:
    """A pass over `size` random images of (large, small), conditioned once, where the model is."""
    (large, small), device = sizes, next(model.parameters()).device
    x = torch.randn(size, 3, *large, device=device)
    t = torch.zeros((size,), dtype=torch.int64, device=device)
    has_classes = model.config.num_classes is not None
    y = torch.zeros(size, dtype=torch.int64, device=device) if has_classes else None
    with torch.inference_mode():
        # once, as a sampling loop has it
        low_res = torch.randn(size, model.config.x_channels, *small, device=device)
        condition = model.condition(low_res, large, y)

    @torch.inference_mode()
    def evaluate() -> object:
        return model(x, t, **condition)

    return evaluate


def _time_nets(
    network: SRDiffusionModelFlags,
    flags: PlanFlags,
    device: torch.device,
    used: Precision,
    trained: Precision,
) -> tuple[float, float, float]:
    """(a pass of the mean net, a training step of it, one of the variance net), an image."""
    sizes: dict[str, Any] = {
        "network": flags.net_kind,
        "large_size": network.large_size,
        "small_size": network.small_size,
        "degradation": network.degradation,
        "condition_on_level": network.condition_on_level,
        "model_channels": flags.net_channels,
        "num_res_blocks": flags.net_res_blocks,
    }
    if flags.net_kind == UNET:
        sizes["channel_mult"] = flags.net_channel_mult
        sizes |= {"attention_resolutions": "16", "resblock_updown": True}
    frozen = cast_to(create_mean_model(**sizes), used).to(device)
    mean = cast_to(create_mean_model(**sizes), trained).to(device)
    var = cast_to(create_var_model(**sizes), trained).to(device)
    seen = frozen.config.x_channels
    low_res, image = (
        torch.randn(flags.batch_size, channels, *size, device=device)
        for channels, size in zip((seen, 3), reversed(network.sizes), strict=True)
    )
    size = image.shape[2:]
    with torch.inference_mode():
        forward = _median(lambda: mean_of(frozen, low_res, size), flags, device)
    mean_step = _median(lambda: _train(mean, mean_of(mean, low_res, size), image), flags, device)
    var_step = _median(lambda: _train(var, variance_of(var, low_res, image), image), flags, device)
    return forward, mean_step, var_step + forward


def _train(net: torch.nn.Module, output: torch.Tensor, label: torch.Tensor) -> None:
    net.zero_grad(set_to_none=True)
    loss = torch.nn.functional.mse_loss(output.float(), label)
    loss.backward()  # type: ignore[no-untyped-call]


def _median(function: Callable[[], object], flags: PlanFlags, device: torch.device) -> float:
    """Seconds an image."""
    times = []
    for _ in range(flags.num_rounds + 1):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:]) / flags.batch_size  # the first one warms up


def plan_rows(rates: Rates, flags: PlanFlags, large_size: SizeLike) -> list[dict[str, float]]:
    """One row per number of samples, steps and devices: hours, disk, and the noise that is left.

    `device_hours` are of sampling; `disk_gb` takes a picture for as large as its bytes, which a
    PNG of a photograph does not exceed by much.
    """
    rows = []
    picture = 3 * math.prod(Size.of(large_size))
    counts = map(flags.counts, ("num_samples", "sampling_steps", "num_devices"))
    for num_samples, steps, devices in itertools.product(*counts):
        per_image = num_samples * picture + _NUM_MOMENT_MAPS * _BYTES_OF_FLOAT * picture
        evaluations = flags.num_images * num_samples * steps
        hours = evaluations * rates.evaluation / 3600
        row = {
            "num_samples": num_samples,
            "steps": steps,
            "devices": devices,
            "evaluations": evaluations,
            "device_hours": hours,
            "hours": hours / devices,
            "disk_gb": flags.num_images * per_image / _GB,
            "mean_error": 1 / num_samples,
            "var_error": math.sqrt(2 / (num_samples - 1)),
        }
        rows.append(row)
    return rows


def net_hours(rates: Rates, flags: PlanFlags) -> dict[str, float]:
    """Device hours of the two nets: their training, and both passes over the test images."""
    seconds = {
        "mean_training": flags.mean_steps * flags.train_batch_size * rates.mean_step,
        "var_training": flags.var_steps * flags.train_batch_size * rates.var_step,
        "both_tests": 2 * flags.num_images * rates.mean_forward,
    }
    return {name: value / 3600 for name, value in seconds.items()}


def grain_of(network: SRDiffusionModelFlags) -> int:
    """Side of the blocks of pixels that are independent given X, as far as the verdict counts.

    Block means leave open what is within a block, each for itself: their side. Of other
    degradations it is not known. Then it is the larger of `_GRAIN` and what ties pixels together:
    the factor, the width of a blur, the blocks of a JPEG.
    """
    made = degradation_of(network)
    if made is None:
        return factor_of(network)
    return max(_GRAIN, made.factor, *(part.grain for part in made.parts))


def plan_verdict(
    flags: PlanFlags, network: SRDiffusionModelFlags, pilot: Pilot | None
) -> tuple[str, dict[str, Any]]:
    """How many images a verdict takes, in words and for plan.json: by the flags, and by a pilot."""
    counts, grain = flags.counts("num_samples"), grain_of(network)
    large = network.sizes[0]
    found = needs(flags.margin, counts, Size(*(max(1, side // grain) for side in large)))
    said = [power_text(flags.margin, found)]
    plan: dict[str, Any] = {"margin": flags.margin, "grain": grain, "images": found}
    if degradation_of(network) is not None:
        said.append(
            f"(blocks of {grain}x{grain} pixels are taken to be independent, a guess for "
            f"--degradation {network.degradation}: --pilot tells)"
        )
    if pilot is not None:
        said.append(pilot_text(pilot, flags.margin, counts))
        by_count = {n: needs_by_pilot(pilot, flags.margin, n) for n in counts}
        plan["by_pilot"] = [
            {"num_samples": n, "part": part, "verdict": word, "units": units}
            for n, parts in by_count.items()
            for part, (word, units) in parts.items()
        ]
    return "\n".join(said), plan


def plan_text(
    rates: Rates, nets: Mapping[str, float], rows: Sequence[Mapping[str, float]], where: str
) -> str:
    """The plan as a table, its columns explained by their heads."""
    lines = [
        f"measured on {where}: {rates.evaluation:.4g} s an evaluation of the upsampler, "
        f"{rates.mean_forward:.4g} s a pass of the mean net, {rates.mean_step:.4g} and "
        f"{rates.var_step:.4g} s an image in training",
        f"the two nets, device hours: mean {nets['mean_training']:.4g}, variance "
        f"{nets['var_training']:.4g}, both passes over the test images {nets['both_tests']:.3g}",
        "",
        f"{'samples':>8}{'steps':>7}{'devices':>9}{'hours':>12}{'device hours':>14}{'disk, GB':>10}"
        f"{'mean: mse/var':>15}{'var: rel. rms':>15}",
    ]
    for row in rows:
        lines.append(
            f"{row['num_samples']:>8.0f}{row['steps']:>7.0f}{row['devices']:>9.0f}"
            f"{row['hours']:>12,.1f}{row['device_hours']:>14,.1f}{row['disk_gb']:>10,.1f}"
            f"{row['mean_error']:>15.2%}{row['var_error']:>15.1%}"
        )
    lines.append("the last two: what the noise of so many samples leaves, for a normal law")
    return "\n".join(lines)
