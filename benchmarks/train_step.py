"""A training step: the project's loop against plain ones, in every way that PyTorch itself has.

    python -m benchmarks.train_step                     a U-Net and the mean net of `make demo`
    python -m benchmarks.train_step --nets subpixel --compile False

Plain loops are eager, compiled, channels last, and each in bf16 by autocast. The U-Net has 64
channels and sees 64² images, a batch of 16 in slices of 8; the sub-pixel net is that of `make demo`
with its batch. The same batch again and again; every variant has weights of its own and starts from
the same ones, which are compared after the first step. Then one step of each is profiled: what of
it is spent outside of convolutions (those of single pixels are matrix products, which count).
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import nets
from benchmarks.harness import Measurement, TimingFlags, Variant, measure, pick_device, quartiles
from benchmarks.record import Table, Target, beside_best, write_record
from benchmarks.reference.subpixel import plain_subpixel
from benchmarks.reference.training import PlainTrainer
from benchmarks.reference.unet import plain_twin
from models.config import UNetConfig
from models.layers import Conv3x3
from models.subpixel import SubpixelVarianceModel
from models.unet import VarianceModel
from sr_var.demo.commands import CPU as DEMO
from sr_var.mean_utils import SRMeanTrainLoop
from sr_var.var_utils import SRVarTrainLoop
from utils.flags.training import ADAMW, MUON
from utils.fp16_util import computes_natively
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser, require_known

PLAIN, PROJECT, BF16 = "plain", "project", "project, bf16"
DIRECT = "project, direct convolutions"
VARIANCE = "project, variance step"
MUON_STEP = "project, Muon"
_COMPILED, _LAST, _AUTOCAST = "compiled", "channels last", "bf16 autocast"
LR = 1e-4
_ROUNDS = 8  # of steps of some 50 ms
# torch 2.13 cannot compile the backward pass of replicated borders channels last
_IN_PLANES = {"layout_optimization": False}
# whose time, with that of all they call, is that of convolutions and linear layers
_PRODUCTS = (
    *("aten::convolution", "aten::convolution_backward", "aten::linear", "AddmmBackward0"),
    *("MmBackward0", "_WinogradConv", "_WinogradConvBackward"),
)


@dataclass(frozen=True)
class TrainStepFlags(TimingFlags):
    """What to train."""

    nets: str = flag("unet,subpixel", "which, comma separated; subpixel: that of make demo")
    side: int = flag(64, "of the U-Net's images, pixels")
    width: int = flag(64, "channels of the U-Net")
    batch_size: int = flag(16, "images of a step of the U-Net")
    microbatch: int = flag(8, "images of a forward pass of the U-Net")
    compile: bool = flag(True, "torch.compile, too: some two minutes a network")
    device: str = flag("auto", "where", ("auto", "cpu", "cuda"))

    def __post_init__(self) -> None:
        """Refuse networks that there are not.

        Raises:
            ValueError: names the flag and what it may be.
        """
        super().__post_init__()
        require_known(self, nets=CASES)


@dataclass(frozen=True)
class Case:
    """Networks of a kind, and the batch that they are trained on.

    Attributes:
        model: the mean net, in float32; it is copied.
        plain: makes its plain twin, with weights of its own.
        variance: the variance net.
        pair: input and label.
        microbatch: images of a forward pass.
        optimizers: that of a comparison first.
        compiling: options of torch's compiler.
        rounds: as many for each of the flag's, where steps are short.
    """

    model: Any
    plain: Callable[[Any], nn.Module]
    variance: Any
    pair: tuple[Tensor, Tensor]
    microbatch: int
    optimizers: Sequence[str] = (ADAMW,)
    compiling: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 1

    @property
    def loop_flags(self) -> dict[str, Any]:
        """Keywords of a training loop."""
        return {"batch_size": len(self.pair[0]), "microbatch": self.microbatch, "lr": LR}


def unet(flags: TrainStepFlags) -> Case:
    """A mean net that sees upsampled images."""
    model = nets.mean_net(flags.side, flags.width)
    shared = {**vars(model.config), "last_layer_type": "softplus"}
    shape = (flags.batch_size, 3, flags.side, flags.side)
    pair = nets.noise(*shape).clamp(-1, 1), nets.noise(*shape, seed=1)
    variance = nets.fill(VarianceModel(UNetConfig(**shared)))
    return Case(model, lambda m: plain_twin(m, is_copy=True), variance, pair, flags.microbatch)


def subpixel(flags: TrainStepFlags) -> Case:
    """The mean net of `make demo`, which sees low-res images, with its batch."""
    demo = DEMO.nets
    factor = demo.large_size // demo.small_size
    model = nets.subpixel(factor, demo.width, demo.num_res_blocks).requires_grad_().train()
    config = dataclasses.replace(model.config, last_layer_type="softplus")
    sides = (demo.small_size,) * 2, (demo.large_size,) * 2
    low_res, label = (nets.noise(DEMO.batch_size, 3, *side, seed=i) for i, side in enumerate(sides))
    variance = nets.fill(SubpixelVarianceModel(config, is_of_pixels=True))
    pair = low_res.clamp(-1, 1), label
    more = {"optimizers": (ADAMW, MUON), "compiling": _IN_PLANES, "rounds": _ROUNDS}
    return Case(model, plain_subpixel, variance, pair, DEMO.batch_size, **more)


CASES: Mapping[str, Callable[[TrainStepFlags], Case]] = {"unet": unet, "subpixel": subpixel}


def variants_of(case: Case, flags: TrainStepFlags, device: torch.device) -> list[Variant]:
    """The plain loop first."""
    has_bf16 = computes_natively(torch.bfloat16, device, with_backward=True)
    case = dataclasses.replace(case, pair=tuple(part.to(device) for part in case.pair))
    found = _plain_steps(case, flags, device, has_bf16=has_bf16)
    own = [_mean_step(PROJECT, case, copy.deepcopy(case.model))]
    if device.type == "cpu" and any(isinstance(m, Conv3x3) for m in case.model.modules()):
        direct = _mean_step(DIRECT, case, copy.deepcopy(case.model))
        own.append(dataclasses.replace(direct, call=nets.with_direct_convolutions(direct.call)))
    if has_bf16:
        own.append(_mean_step(BF16, case, _cast(case.model)))
    else:
        print("bf16: this device has no arithmetic for it; left out")
    if MUON in case.optimizers:
        step = _mean_step(MUON_STEP, case, copy.deepcopy(case.model), MUON)
        own.append(dataclasses.replace(step, outcome=None, note="as make demo trains"))
    return [*found, *own, _variance_step(case)]


def all_weights(model: nn.Module) -> Tensor:
    """Every parameter, one after the other, in float32."""
    return torch.cat([p.detach().float().contiguous().flatten() for p in model.parameters()])


def _cast(model: Any) -> Any:
    cast = copy.deepcopy(model)
    cast.convert_torso(torch.bfloat16)
    return cast


def _plain_steps(
    case: Case, flags: TrainStepFlags, device: torch.device, *, has_bf16: bool
) -> list[Variant]:
    """The plain loop by all ways that PyTorch has for it."""
    ways: list[tuple[str, ...]] = [(), *([(_COMPILED,)] if flags.compile else []), (_LAST,)]
    if has_bf16:
        ways += [(*way, _AUTOCAST) for way in ways]
    return [_plain_step(way, case, device) for way in ways]


def _plain_step(way: Sequence[str], case: Case, device: torch.device) -> Variant:
    model = case.plain(case.model).to(device)
    order = torch.contiguous_format
    if _LAST in way:
        order = torch.channels_last
        model = model.to(memory_format=order)
    call: nn.Module = model
    if _COMPILED in way:
        call = torch.compile(model, dynamic=False, options=dict(case.compiling))

    def forward(images: Tensor) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=_AUTOCAST in way):
            output: Tensor = call(images.contiguous(memory_format=order))
        return output

    trainer = PlainTrainer(model, lr=LR, microbatch=case.microbatch, forward=forward)
    name = ", ".join([PLAIN, *way])
    return Variant(name, lambda: trainer.step(*case.pair), lambda _: all_weights(model))


def _mean_step(name: str, case: Case, model: Any, optimizer: str = ADAMW) -> Variant:
    loop = SRMeanTrainLoop(model=model, data=[], optimizer=optimizer, **case.loop_flags)
    return Variant(name, _step(loop, case.pair), lambda _: all_weights(loop.model))


def _variance_step(case: Case) -> Variant:
    """The step of a variance net of the same size, with the mean net in front of it."""
    frozen = copy.deepcopy(case.model)
    loop = SRVarTrainLoop(model=case.variance, mean_model=frozen, data=[], **case.loop_flags)
    return Variant(VARIANCE, _step(loop, case.pair), against=PROJECT, note="one more forward pass")


def _step(loop: Any, pair: tuple[Tensor, Tensor]) -> Callable[[], None]:
    def step() -> None:
        loop.run_step(*pair)
        # what is kept for the next report would grow with every step
        loop.logger.take_means()

    return step


def share_outside(call: Callable[[], Any]) -> float:
    """Share of a call's time that is not that of convolutions and linear layers."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        call()
    events = profiler.key_averages()
    inside = sum(event.cpu_time_total for event in events if event.key in _PRODUCTS)
    return 1 - inside / sum(event.self_cpu_time_total for event in events)


def rates_of(
    case: Case, measured: Measurement, device: torch.device
) -> dict[str, dict[str, float | None]]:
    """Images a second of each variant, and what of a step is outside of convolutions.

    The latter is not told on a GPU, nor of compiled networks, whose kernels have other names, nor
    of a variance step, whose frozen mean net has Winograd's filtering without a name of its own.
    """
    found: dict[str, dict[str, float | None]] = {}
    for one in measured.variants:
        is_told = device.type == "cpu" and _COMPILED not in one.name and one.name != VARIANCE
        found[one.name] = {
            "images_a_second": len(case.pair[0]) / quartiles(measured.times[one.name])[1],
            "outside_of_convolutions": share_outside(one.call) if is_told else None,
        }
    return found


def format_rates(rates: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> str:
    """The rates of all networks in Markdown."""
    lines = [
        "| network | variant | images a second | outside of convolutions |",
        "|---|---|---|---|",
    ]
    for net, rows in rates.items():
        for name, row in rows.items():
            outside = row["outside_of_convolutions"]
            share = "–" if outside is None else f"{outside:.0%}"
            lines.append(f"| {net} | {name} | {row['images_a_second']:.3g} | {share} |")
    return "\n".join(lines) + "\n"


def targets_of(net: str, measured: Measurement, device: torch.device) -> list[Target]:
    """The goals for this device; those against plain are of the U-Net."""
    ratio, half = (measured.ratio(name, PLAIN) for name in (PROJECT, BF16))
    missing = "" if BF16 in measured.times else "no bf16 arithmetic here: left out"
    if device.type == "cuda":
        best = max(ratio or 0, half or 0)
        return [Target(f"{net}: training step against plain", best, 2.0)]
    peers = [one.name for one in measured.variants if one.name.startswith(PLAIN)]
    exact = [name for name in peers if not name.endswith(_AUTOCAST)]
    found = [
        beside_best(f"{net}: fp32 step, time over the best exact way's", measured, PROJECT, exact)
    ]
    if not missing:
        text = f"{net}: bf16 step, time over the best way's"
        found.append(beside_best(text, measured, BF16, peers))
    if net == "unet":
        variance = measured.ratio(PROJECT, VARIANCE)
        found += [
            Target("fp32 step against plain", ratio, 1.12),
            Target("bf16 step against plain", half, 1.6, note=missing),
            Target("variance step over mean step", variance, 1.35, is_at_least=False),
        ]
    return found


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    parser = make_parser(__doc__, benchmark=TrainStepFlags)
    flags = from_args(TrainStepFlags, parser.parse_args(argv))
    device = pick_device(flags.device)
    if flags.threads:
        torch.set_num_threads(flags.threads)
    if device.type == "cpu":
        tune_allocator()
    tables, targets, rates = [], [], {}
    for net in flags.nets.split(","):
        case = CASES[net](flags)
        timing = dataclasses.replace(flags, rounds=case.rounds * flags.rounds)
        measured = measure(variants_of(case, flags, device), timing, device)
        rates[net] = rates_of(case, measured, device)
        tables.append(Table(f"{net}, batch {len(case.pair[0])}", measured.rows()))
        targets += targets_of(net, measured, device)
    write_record("train_step", flags, tables, targets, {"rates": rates}, text=format_rates(rates))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
