"""What a sampling loop costs beside the network: the project's, a plain one, diffusers'.

    python -m benchmarks.sampling_loop
    python -m benchmarks.sampling_loop --peer False     without diffusers (requirements-bench.txt)

Times are seconds a step outside the network, whose calls are clocked and taken off. As the loops
do not depend on what the network does, they run on a stand-in that costs next to nothing, so that
many rounds fit; `--stand_in False` puts the real network into them, which empties the caches. One
evaluation of the real network is timed in the same rounds: the share is outside / (outside + it).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import nets
from benchmarks.harness import (
    Measurement,
    Timed,
    TimingFlags,
    Variant,
    measure,
    pick_device,
    quartiles,
)
from benchmarks.peers import SAMPLERS, DiffusersLoop, has_diffusers
from benchmarks.record import Table, Target, write_record
from benchmarks.reference.sampling import PlainSampler
from ddpm.flags import DiffusionFlags
from ddpm.process import create_diffusion
from diffusion.samplers import SamplerOptions, gaussian_noise_fn, sample_loop
from diffusion.schedules import get_named_beta_schedule
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import flag, from_args, make_parser

NETWORK, PROJECT, PLAIN, PEER = "network, one evaluation", "project", "plain", "diffusers"
BASE_STEPS, MAX_SHARE_SIDE = 1000, 256


@dataclass(frozen=True)
class LoopFlags(TimingFlags):
    """What to run."""

    rounds: int = flag(15, "rounds; each runs every variant once")
    sides: str = flag("64,256", "sides of the images, comma separated")
    pixels: int = flag(10 * 64 * 64, "pixels of a batch; at least one image")
    width: int = flag(32, "channels of the network")
    num_steps: int = flag(10, "steps of a loop, a divisor of 1000")
    peer: bool = flag(True, "diffusers' loops, too")
    stand_in: bool = flag(True, "loops on a network that costs nothing")
    device: str = flag("auto", "where", ("auto", "cpu", "cuda"))

    @property
    def chosen_sides(self) -> list[int]:
        """The parsed `sides`."""
        return [int(side) for side in self.sides.split(",")]


class Clocked:
    """A network whose seconds are added up."""

    def __init__(self, model: Callable[..., Tensor], wait: Callable[[], None]) -> None:
        self._model, self._wait, self.seconds = model, wait, 0.0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """The network's output."""
        self._wait()
        started = time.perf_counter()
        output = self._model(x, t)
        self._wait()
        self.seconds += time.perf_counter() - started
        return output


@torch.no_grad()
def stand_in(x: Tensor, t: Tensor) -> Tensor:
    """Something of the size of noise that depends on the image and on the timestep."""
    return torch.tanh(x) * (0.5 + 0.5 * t.float().reshape(-1, 1, 1, 1) / BASE_STEPS)


class Loops:
    """The loops at one side of the images.

    Args:
        side: pixels.
        flags: of the measurement.
        device: where.
    """

    def __init__(self, side: int, flags: LoopFlags, device: torch.device) -> None:
        self.flags, self.device = flags, device
        self.shape = (max(1, flags.pixels // side**2), 3, side, side)
        self.process = create_diffusion(
            DiffusionFlags(sigma_small=True, timestep_respacing=f"ddim{flags.num_steps}")
        )
        self.network = nets.denoiser(side, flags.width).to(device)
        self.model: Callable[..., Tensor] = stand_in if flags.stand_in else self.network
        self._wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def variants(self) -> list[Variant]:
        """Every sampler's loops, and one evaluation of the network."""
        x = nets.noise(*self.shape).to(self.device)
        t = torch.full((self.shape[0],), BASE_STEPS // 2, device=self.device)

        @torch.inference_mode()
        def evaluate() -> Tensor:
            return self.network(x, t)

        found = [Variant(NETWORK, evaluate)]
        betas = get_named_beta_schedule("linear", BASE_STEPS).tolist()
        for sampler in SAMPLERS:
            loops: dict[str, Callable[..., Tensor]] = {PROJECT: self._project(sampler)}
            if sampler != "dpmpp_2m":
                loops[PLAIN] = self._plain(sampler)
            if self.flags.peer:
                loops[PEER] = DiffusersLoop(sampler, self.process, betas)
            against = f"{sampler}: {PEER if self.flags.peer else PROJECT}"
            for name, loop in loops.items():
                call = self._timed(loop, has_generators=name == PEER)
                found.append(Variant(f"{sampler}: {name}", call, lambda x: x, against))
        return found

    def _project(self, sampler: str) -> Callable[..., Tensor]:
        # diffusers' DPM-Solver has no clamp, so that of the project is off, too
        options = SamplerOptions(sampler=sampler, clip_denoised=sampler != "dpmpp_2m")
        return lambda model, x, noise_fn: sample_loop(self.process, model, x, noise_fn, options)

    def _plain(self, sampler: str) -> Callable[..., Tensor]:
        plain = PlainSampler(
            self.process.coefficients.betas, self.process.timestep_map, is_variance_small=True
        )
        found: Callable[..., Tensor] = getattr(plain, sampler)
        return found

    def _timed(self, loop: Callable[..., Tensor], *, has_generators: bool) -> Callable[[], Timed]:
        """The loop, each row with a generator of its own; seconds a step outside the network."""

        def call() -> Timed:
            generators = [torch.Generator(self.device).manual_seed(i) for i in range(self.shape[0])]
            x_T, noise_fn = gaussian_noise_fn(generators, self.shape, self.device)
            model = Clocked(self.model, self._wait)
            self._wait()
            started = time.perf_counter()
            sample = loop(model, x_T, generators if has_generators else noise_fn)
            self._wait()
            outside = time.perf_counter() - started - model.seconds
            return Timed(outside / self.flags.num_steps, sample)

        return call


def shares(measured: Measurement) -> dict[str, float]:
    """Share of a step that each loop spends outside the network."""
    network = quartiles(measured.times[NETWORK])[1]
    medians = {name: quartiles(t)[1] for name, t in measured.times.items() if name != NETWORK}
    return {name: outside / (outside + network) for name, outside in medians.items()}


def targets_of(measured: dict[int, Measurement], has_peer: bool) -> list[Target]:
    """The largest share of the project's loops, and the smallest ratio to the peer's."""
    found = []
    for side, one in measured.items():
        own = {name: share for name, share in shares(one).items() if name.endswith(PROJECT)}
        worst = max(own, key=lambda name: own[name])
        if side == MAX_SHARE_SIDE:
            text = f"share outside the network at {side}², {worst}"
            found.append(Target(text, 100 * own[worst], 1.0, is_at_least=False, unit="%"))
        ratios = {
            sampler: one.ratio(f"{sampler}: {PROJECT}", f"{sampler}: {PEER}")
            for sampler in SAMPLERS
        }
        known = {sampler: ratio for sampler, ratio in ratios.items() if ratio is not None}
        slowest = min(known, key=lambda name: known[name], default="")
        text = f"diffusers' time over the project's at {side}², {slowest}".rstrip(", ")
        note = "" if has_peer else "diffusers is not installed"
        found.append(Target(text, known.get(slowest), 1.0, note=note))
    return found


def main(argv: list[str] | None = None) -> int:
    """Measures, prints, writes."""
    flags = from_args(LoopFlags, make_parser(__doc__, benchmark=LoopFlags).parse_args(argv))
    if flags.peer and not has_diffusers():
        raise ValueError(
            "diffusers is not installed: pip install -r requirements-bench.txt, or give --peer "
            "False to leave it out"
        )
    device = pick_device(flags.device)
    if flags.threads:
        torch.set_num_threads(flags.threads)
    if device.type == "cpu":
        tune_allocator()
    measured: dict[int, Measurement] = {}
    tables, extra = [], dict[str, Any]()
    for side in flags.chosen_sides:
        loops = Loops(side, flags, device)
        measured[side] = measure(loops.variants(), flags, device)
        extra[f"shares_{side}"] = shares(measured[side])
        title = f"{side}², batch {loops.shape[0]}: seconds a step outside the network"
        tables.append(Table(title, measured[side].rows()))
        for name, share in extra[f"shares_{side}"].items():
            print(f"{side}² {name}: {share:.2%} of a step outside the network")
    targets = targets_of(measured, flags.peer)
    write_record("sampling_loop", flags, tables, targets, extra)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
