"""One network by every way there is to run it on this machine, the toolkit's own among them.

    python -m benchmarks.ways                                  two small networks
    python -m benchmarks.ways --nets 64_256_upsampler          the published upsampler

Plain eager PyTorch, channels last, torch.compile with inductor's freezing and max-autotune,
onnxruntime, OpenVINO, and for denoisers diffusers' UNet2DModel with the same weights, in fp32 and,
where the CPU computes in it, in bf16. All run in one process on the same input, and each output is
compared with the first. Ways whose package is missing are named and left out
(requirements-bench.txt, requirements-export.txt).
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import nets
from benchmarks.harness import Measurement, TimingFlags, Variant, measure
from benchmarks.record import Table, Target, beside_best, peer_version, write_record
from benchmarks.reference.unet import plain_twin
from models.config import POINTWISE
from models.subpixel import SubpixelBase
from models.unet import SuperResModel
from sr_var.script_util import create_mean_model
from utils.flags.groups import Precision
from utils.fp16_util import computes_natively
from utils.loops.networks import cast_to
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser, require_at_least, require_known
from weights.diffusers_names import unet2d_config, unet2d_weights
from weights.graphs import (
    Chain,
    Graph,
    mean_graph,
    quiet_exporter,
    upsampler_graph,
    variance_graph,
)
from weights.onnx_graph import open_onnx, to_onnx

FACTOR, SIDE = 4, 64  # of the mean nets
PLAIN, PROJECT = "plain eager", "project"
BF16 = Precision.BF16
_INDUCTOR = {"freezing": True, "max_autotune": True}


@dataclass(frozen=True)
class WaysFlags(TimingFlags):
    """Which networks, by which ways, and how long to measure."""

    nets: str = flag("subpixel,small_16_64", "which, comma separated")
    batch_size: int = flag(1, "images of a pass")
    side: int = flag(SIDE, "side of the low-res images of a mean or sub-pixel net, pixels")
    compile: bool = flag(True, "torch.compile, too: a minute or two a network")
    bf16: bool = flag(True, "bf16, too, where this CPU computes in it")

    def __post_init__(self) -> None:
        """Refuse networks that there are not.

        Raises:
            ValueError: names the flag and what it may be.
        """
        super().__post_init__()
        require_at_least(self, batch_size=1, side=1)
        require_known(self, nets=NETS)


@dataclass(frozen=True)
class Case:
    """A network and what it is given.

    Attributes:
        graph: what it computes.
        inputs: by the order of the graph's.
    """

    graph: Graph
    inputs: tuple[Tensor, ...]

    @property
    def network(self) -> nn.Module:
        """The network inside."""
        network: nn.Module = self.graph.module.network
        return network

    def with_network(self, network: nn.Module) -> nn.Module:
        """The same computation around another network."""
        module = copy.copy(self.graph.module)
        module._modules = {**module._modules, "network": network}
        return module


def _mean(make: Callable[[], Any]) -> Callable[[int, int], Case]:
    def make_case(batch_size: int, side: int) -> Case:
        low_res = nets.noise(batch_size, 3, side, side).clamp(-1, 1)
        return Case(mean_graph(make(), FACTOR), (low_res,))

    return make_case


def _subpixel_variance(batch_size: int, side: int) -> Case:
    low_res = nets.noise(batch_size, 3, side, side).clamp(-1, 1)
    mean = nets.noise(batch_size, 3, FACTOR * side, FACTOR * side, seed=1).clamp(-1, 1)
    return Case(variance_graph(nets.small_subpixel_variance(FACTOR), FACTOR), (low_res, mean))


def _subpixel_denoiser(batch_size: int, side: int) -> Case:
    low_res = nets.noise(batch_size, 3, side, side).clamp(-1, 1)
    x = nets.noise(batch_size, 3, FACTOR * side, FACTOR * side, seed=1)
    graph = upsampler_graph(nets.small_subpixel_denoiser(FACTOR), FACTOR, Chain(10))
    return Case(graph, (x, torch.arange(batch_size) % 10, low_res))


def _mean_64_256() -> Any:
    network = create_mean_model(large_size=FACTOR * SIDE, small_size=SIDE)
    return nets.fill(network).eval().requires_grad_(False)


def _upsampler(name: str) -> Callable[[int, int], Case]:
    def make(batch_size: int, _: int) -> Case:
        model = nets.upsampler(name)
        side = model.config.image_size
        inputs = (
            nets.noise(batch_size, 3, side, side),
            torch.linspace(900, 100, batch_size).round().long(),
            nets.noise(batch_size, 3, side // FACTOR, side // FACTOR, seed=1).clamp(-1, 1),
            torch.arange(batch_size),
        )
        return Case(upsampler_graph(model, FACTOR, Chain(1000)), inputs)

    return make


NETS: dict[str, Callable[[int, int], Case]] = {
    "subpixel": _mean(lambda: nets.small_subpixel(FACTOR)),
    "subpixel_pointwise": _mean(lambda: nets.subpixel(FACTOR, 32, 4, POINTWISE)),
    "subpixel_variance": _subpixel_variance,
    "subpixel_denoiser": _subpixel_denoiser,
    "large_subpixel": _mean(lambda: nets.large_subpixel(FACTOR)),
    "unet": _mean(lambda: nets.small_unet(FACTOR * SIDE)),
    "mean_64_256": _mean(_mean_64_256),
    **{name: _upsampler(name) for name in nets.NETS},
}


def ways(case: Case, flags: WaysFlags) -> tuple[list[Variant], list[str]]:
    """Every way that is here, the plainest first; and what is missing, in words."""
    missing: list[str] = []
    has_bf16 = flags.bf16 and computes_natively(torch.bfloat16, torch.device("cpu"))
    if not has_bf16:
        missing.append("bf16: not asked for, or this CPU has no arithmetic for it")
    precisions = [Precision.FP32, *([BF16] if has_bf16 else [])]
    plain = case.with_network(_plain(case.network))
    found = [_eager(PLAIN, plain, case, has_torch_layers=True)]
    for precision in precisions:
        cast = case.with_network(cast_to(copy.deepcopy(case.network), precision))
        found.append(_eager(_name(PROJECT, precision), cast, case))
        if isinstance(case.network, SubpixelBase):
            name = _name(f"{PROJECT}, torch's layers", precision)
            found.append(_eager(name, cast, case, has_torch_layers=True))
        found += _torch_ways(case, precision, flags)
    found += _onnx_ways(case, precisions, missing)
    found += _diffusers_ways(case, precisions, missing)
    return found, missing


def _name(way: str, precision: Precision) -> str:
    return way if precision is Precision.FP32 else f"{way}, {precision}"


def _eager(
    name: str, module: Callable[..., Tensor], case: Case, *, has_torch_layers: bool = False
) -> Variant:
    # where gradients might be wanted, sub-pixel networks have torch's layers
    with_gradients = has_torch_layers and isinstance(case.network, SubpixelBase)

    @torch.inference_mode()
    def call() -> Tensor:
        with torch.set_grad_enabled(with_gradients):
            return module(*case.inputs)

    return Variant(name, call, lambda output: output)


def _plain(network: nn.Module) -> nn.Module:
    """The network without anything that is made for speed."""
    return plain_twin(network) if not isinstance(network, SubpixelBase) else network


def _torch_ways(case: Case, precision: Precision, flags: WaysFlags) -> list[Variant]:
    """Channels last, and compiled; with torch's own convolutions and its autocast to bf16."""
    last = copy.deepcopy(case.network).to(memory_format=torch.channels_last)
    module = case.with_network(last)

    def cast(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def run(*inputs: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision is BF16):
                return call(*inputs)

        return run

    name = _name("torch, channels last", precision)
    found = [_eager(name, cast(module), case, has_torch_layers=True)]
    if flags.compile:
        compiled = torch.compile(module, options=dict(_INDUCTOR))
        found.append(_eager(_name("torch.compile", precision), cast(compiled), case))
    return [dataclasses.replace(one, call=nets.with_direct_convolutions(one.call)) for one in found]


def _onnx_ways(case: Case, precisions: Sequence[Precision], missing: list[str]) -> list[Variant]:
    """Onnxruntime, which has no bf16 convolutions, and OpenVINO."""
    needed = {"onnxruntime", "onnx", "onnxscript"}
    lacking = sorted(name for name in needed if not importlib.util.find_spec(name))
    if lacking:
        missing.append(f"onnxruntime and OpenVINO: {', '.join(lacking)} not installed")
        return []
    model = to_onnx(case.graph, {})
    session = open_onnx(model, num_threads=torch.get_num_threads())
    given = {
        one.name: value.numpy() for one, value in zip(case.graph.inputs, case.inputs, strict=True)
    }
    found = [Variant("onnxruntime", lambda: session.run(None, given)[0], torch.from_numpy)]
    if not importlib.util.find_spec("openvino"):
        missing.append("OpenVINO: openvino not installed")
        return found
    return found + [_openvino(model, given, precision) for precision in precisions]


def _openvino(model: bytes, given: dict[str, Any], precision: Precision) -> Variant:
    openvino = importlib.import_module("openvino")
    core = openvino.Core()
    read = core.read_model(model, b"")
    read.reshape({name: list(value.shape) for name, value in given.items()})
    kind = "bf16" if precision is BF16 else "f32"
    how = {
        "INFERENCE_PRECISION_HINT": kind,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(read, "CPU", how).create_infer_request()

    def call() -> Any:
        return request.infer(given)[0]

    return Variant(_name("OpenVINO", precision), call, lambda output: torch.from_numpy(output))


def _diffusers_ways(
    case: Case, precisions: Sequence[Precision], missing: list[str]
) -> list[Variant]:
    """UNet2DModel with the same weights, channels last, cast as a whole to bf16."""
    network = case.network
    if not isinstance(network, SuperResModel):
        return []
    if not importlib.util.find_spec("diffusers"):
        missing.append("diffusers: not installed")
        return []
    diffusers = importlib.import_module("diffusers")
    try:
        config = unet2d_config(network)
    except ValueError as error:
        missing.append(f"diffusers: {error}")
        return []
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    twin = diffusers.UNet2DModel(**config)
    twin.load_state_dict(unet2d_weights(network))
    return [_diffusers(twin.eval(), case, precision) for precision in precisions]


def _diffusers(twin: nn.Module, case: Case, precision: Precision) -> Variant:
    dtype = getattr(torch, precision.value)
    twin = copy.deepcopy(twin).to(dtype=dtype, memory_format=torch.channels_last)

    def run(x: Tensor, timesteps: Tensor, low_res: Tensor, labels: Tensor) -> Tensor:
        upsampled = F.interpolate(low_res, x.shape[2:], mode="bilinear")
        both = torch.cat([x, upsampled], dim=1).to(dtype, memory_format=torch.channels_last)
        output: Tensor = twin(both, timesteps, class_labels=labels).sample
        return output.float()

    return _eager(_name("diffusers, channels last", precision), run, case)


def targets_of(name: str, measured: Measurement) -> list[Target]:
    """The toolkit's time over that of the best other way, for each precision."""
    found = []
    for precision in (Precision.FP32, BF16):
        own = _name(PROJECT, precision)
        if own not in measured.times:
            continue
        # an exact way competes with bf16, too: who asks for speed may have it
        others = [
            one.name
            for one in measured.variants
            if one.name != own
            and (precision is BF16 or not one.name.endswith(str(BF16)))
            and not one.name.startswith(f"{PROJECT},")
        ]
        text = f"{name}: {own}, time over the best other way's"
        found.append(beside_best(text, measured, own, others))
    return found


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(WaysFlags, make_parser(__doc__, benchmark=WaysFlags).parse_args(argv))
    if flags.threads:
        torch.set_num_threads(flags.threads)
    tune_allocator()
    tables, targets, left_out = [], [], {}
    for name in flags.nets.split(","):
        with quiet_exporter():
            variants, left_out[name] = ways(NETS[name](flags.batch_size, flags.side), flags)
            measured = measure(variants, flags)
        for line in left_out[name]:
            print(f"{name}: left out: {line}")
        tables.append(Table(name, measured.rows()))
        targets += targets_of(name, measured)
    peers = {name: peer_version(name) for name in ("openvino", "onnxruntime", "diffusers")}
    write_record("ways", flags, tables, targets, {"left_out": left_out, "peers": peers})
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
