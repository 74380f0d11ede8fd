"""A training step of the mean net: the project's loop and a plain one; and one of the variance net.

    python -m benchmarks.train_step                     64 channels, 64², batch 16 in slices of 8

The same batch again and again; every variant has weights of its own and starts from the same ones,
which are compared after the first step.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks import nets
from benchmarks.harness import Measurement, TimingFlags, Variant, measure, pick_device
from benchmarks.record import Table, Target, write_record
from benchmarks.reference.training import PlainTrainer
from benchmarks.reference.unet import plain_twin
from models.config import UNetConfig
from models.unet import UNetModel, VarianceModel
from sr_var.mean_utils import SRMeanTrainLoop
from sr_var.var_utils import SRVarTrainLoop
from utils.fp16_util import computes_natively
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser

PLAIN, PROJECT, BF16 = "plain", "project", "project, bf16"
DIRECT = "project, direct convolutions"
VARIANCE = "project, variance step"
LR = 1e-4


@dataclass(frozen=True)
class TrainStepFlags(TimingFlags):
    """What to train."""

    side: int = flag(64, "of the images, pixels")
    width: int = flag(64, "channels of the network")
    batch_size: int = flag(16, "images of a step")
    microbatch: int = flag(8, "images of a forward pass")
    device: str = flag("auto", "where", ("auto", "cpu", "cuda"))


def variants_of(flags: TrainStepFlags, device: torch.device) -> list[Variant]:
    """The plain loop first."""
    model = nets.mean_net(flags.side, flags.width)
    shape = (flags.batch_size, 3, flags.side, flags.side)
    pair = nets.noise(*shape).clamp(-1, 1).to(device), nets.noise(*shape, seed=1).to(device)
    plain = PlainTrainer(
        plain_twin(model, is_copy=True).to(device), lr=LR, microbatch=flags.microbatch
    )
    found = [
        Variant(PLAIN, lambda: plain.step(*pair), lambda _: all_weights(plain.model)),
        _mean_step(PROJECT, copy.deepcopy(model), flags, pair),
    ]
    if device.type == "cpu":
        direct = _mean_step(DIRECT, copy.deepcopy(model), flags, pair)
        found.append(dataclasses.replace(direct, call=nets.with_direct_convolutions(direct.call)))
    if computes_natively(torch.bfloat16, device, with_backward=True):
        cast = copy.deepcopy(model)
        cast.convert_torso(torch.bfloat16)
        found.append(_mean_step(BF16, cast, flags, pair))
    else:
        print("bf16: this device has no arithmetic for it; left out")
    return [*found, _variance_step(model, flags, pair)]


def all_weights(model: torch.nn.Module) -> torch.Tensor:
    """Every parameter, one after the other, in float32."""
    return torch.cat([p.detach().float().contiguous().flatten() for p in model.parameters()])


def _loop_flags(flags: TrainStepFlags) -> dict[str, Any]:
    return {"batch_size": flags.batch_size, "microbatch": flags.microbatch, "lr": LR}


def _mean_step(
    name: str, model: UNetModel, flags: TrainStepFlags, pair: tuple[torch.Tensor, torch.Tensor]
) -> Variant:
    loop = SRMeanTrainLoop(model=model, data=[], **_loop_flags(flags))
    return Variant(name, _step(loop, pair), lambda _: all_weights(loop.model))


def _variance_step(
    mean_model: UNetModel, flags: TrainStepFlags, pair: tuple[torch.Tensor, torch.Tensor]
) -> Variant:
    """The step of a variance net of the same size, with the mean net in front of it."""
    shared = {**vars(mean_model.config), "last_layer_type": "softplus"}
    model = nets.fill(VarianceModel(UNetConfig(**shared)))
    frozen = copy.deepcopy(mean_model)
    loop = SRVarTrainLoop(model=model, mean_model=frozen, data=[], **_loop_flags(flags))
    return Variant(VARIANCE, _step(loop, pair), against=PROJECT, note="one more forward pass")


def _step(loop: Any, pair: tuple[torch.Tensor, torch.Tensor]) -> Callable[[], None]:
    def step() -> None:
        loop.run_step(*pair)
        # what is kept for the next report would grow with every step
        loop.logger.take_means()

    return step


def targets_of(measured: Measurement, device: torch.device) -> list[Target]:
    """The goals for this device."""
    ratio = measured.ratio(PROJECT, PLAIN)
    missing = "" if BF16 in measured.times else "no bf16 arithmetic here: left out"
    variance = measured.ratio(PROJECT, VARIANCE)
    if device.type == "cuda":
        best = max(ratio or 0, measured.ratio(BF16, PLAIN) or 0)
        found = [Target("training step against plain", best, 2.0)]
    else:
        found = [
            Target("fp32 step against plain", ratio, 1.12),
            Target("bf16 step against plain", measured.ratio(BF16, PLAIN), 1.6, note=missing),
        ]
    text = "variance step over mean step"
    return [*found, Target(text, variance, 1.35, is_at_least=False)]


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = make_parser(__doc__, benchmark=TrainStepFlags)
    flags = from_args(TrainStepFlags, parser.parse_args(argv))
    device = pick_device(flags.device)
    if flags.threads:
        torch.set_num_threads(flags.threads)
    if device.type == "cpu":
        tune_allocator()
    measured = measure(variants_of(flags, device), flags, device)
    title = f"{flags.width} channels, {flags.side}², batch {flags.batch_size} by {flags.microbatch}"
    tables = [Table(title, measured.rows())]
    write_record("train_step", flags, tables, targets_of(measured, device))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
