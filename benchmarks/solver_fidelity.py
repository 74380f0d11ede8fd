"""How much of the true variance each sampler keeps, against its number of network evaluations.

    python benchmarks/solver_fidelity.py          (a quarter of an hour on one core, no network)

The denoisers are exact: a Gaussian with a small std, and the oracle law on photographs. Writes
`solver_fidelity_<date>.json`, `.md` and `.png` to `--output_dir`.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

import numpy as np  # noqa: E402
import torch  # noqa: E402

from benchmarks.exact_problems import (  # noqa: E402
    GaussianProblem,
    Problem,
    exact_model,
    oracle_problems,
)
from benchmarks.fidelity import (  # noqa: E402
    SOLVERS,
    ChainFlags,
    Fidelity,
    Solver,
    build_process,
    linear_std,
    measure,
    sampler_options,
)
from benchmarks.fidelity_report import Measured, draw, format_tables  # noqa: E402
from diffusion.types import ModelVarType  # noqa: E402
from oracle.law import PHOTO_SCALE  # noqa: E402
from utils.images.files import center_crop_arr, open_image  # noqa: E402
from utils.images.pixels import bytes_to_image  # noqa: E402
from utils.metrics import HALF_RANGE_255  # noqa: E402
from utils.process.errors import DataError, run_main  # noqa: E402
from utils.script_util import FlagParser, flag, from_args, make_parser  # noqa: E402

# many small images: the error of the variance is estimated from how the samples differ
GAUSSIAN_SHAPE, NUM_GAUSSIAN_SAMPLES, GAUSSIAN_CENTRE = (1, 16, 16), 384, 0.2


@dataclass(frozen=True)
class FidelityFlags:
    """What to measure and where to write."""

    steps: str = flag("5,10,15,20,25,50,100,250", "numbers of network evaluations")
    noise_schedule: str = flag("linear", "how noise grows with t", ("linear", "cosine"))
    diffusion_steps: int = flag(1000, "steps of the chain that is respaced")
    clip_denoised: bool = flag(False, "clamp the predicted image to [-1, 1] at every step")
    std_255: float = flag(5.0, "std of the Gaussian, grey levels")
    data_dir: str = flag(str(ROOT / "data/demo/test"), "photographs of the oracle")
    num_images: int = flag(4, "photographs to use, evenly spaced in the folder; 0: no oracle")
    small_size: int = flag(8, "side of the oracle's low-res images, pixels")
    factor: int = flag(4, "high-res pixels along the side of a low-res one")
    num_samples: int = flag(128, "samples of each oracle image")
    seed: int = flag(0, "of the noise")
    device: str = flag("cpu", "where to sample: cpu, cuda, ...")
    output_dir: str = flag(str(ROOT / "benchmarks/results"), "folder of the three files")

    def __post_init__(self) -> None:
        """Refuse counts that measure nothing."""
        if self.num_samples < 2 or self.num_images < 0 or self.std_255 <= 0.0:
            raise ValueError(
                f"--num_samples {self.num_samples} must be at least 2, --num_images "
                f"{self.num_images} at least 0, --std_255 {self.std_255:g} positive"
            )
        if any(count < 2 for count in self.counts):
            raise ValueError(f"--steps {self.steps} must be numbers of at least 2")

    @property
    def counts(self) -> list[int]:
        """The numbers of steps."""
        return [int(part) for part in self.steps.split(",")]

    @property
    def chain(self) -> ChainFlags:
        """The chain they are steps of."""
        return ChainFlags(self.noise_schedule, self.diffusion_steps, self.clip_denoised)


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, benchmark=FidelityFlags)


def load_crops(flags: FidelityFlags) -> list[torch.Tensor]:
    """Low-res photographs (3, h, w) in [-1, 1].

    Raises:
        DataError: when the folder has fewer than wanted.
    """
    paths = sorted(p for p in Path(flags.data_dir).glob("*") if p.suffix in (".jpg", ".png"))
    if len(paths) < flags.num_images:
        raise DataError(
            f"--data_dir {flags.data_dir} holds {len(paths)} photographs, --num_images wants "
            f"{flags.num_images}"
        )
    places = np.linspace(0, len(paths) - 1, flags.num_images).round().astype(int)
    crops = (center_crop_arr(open_image(paths[i]), flags.small_size) for i in places)
    return [
        bytes_to_image(torch.from_numpy(crop)).permute(2, 0, 1).to(flags.device) for crop in crops
    ]


def measure_gaussian(
    flags: FidelityFlags, solver: Solver, num_steps: int, generator: torch.Generator
) -> Fidelity:
    """Sampled, and propagated through the linear steps without sampling."""
    process = build_process(flags.chain, solver, num_steps)
    options = sampler_options(solver, flags.chain)
    std = flags.std_255 / HALF_RANGE_255
    sampled = measure(
        [GaussianProblem(GAUSSIAN_CENTRE, std, GAUSSIAN_SHAPE)],
        process,
        options,
        NUM_GAUSSIAN_SAMPLES,
        generator,
    )
    if flags.clip_denoised:
        return sampled
    centred = GaussianProblem(0.0, std, (1, 1, 1))
    model = exact_model(centred, process, solver.var_type is ModelVarType.LEARNED)
    return dataclasses.replace(sampled, exact_std_share=linear_std(process, model, options) / std)


def measure_all(flags: FidelityFlags) -> list[Measured]:
    """Every solver with every number of steps on each problem."""
    gaussian = f"Gaussian of {flags.std_255:g} grey levels"
    generator = torch.Generator(flags.device).manual_seed(flags.seed)
    problems: list[Problem] = []
    if flags.num_images:
        problems.extend(oracle_problems(load_crops(flags), flags.factor, PHOTO_SCALE))
    cells = []
    for solver in SOLVERS:
        for count in flags.counts:
            fidelity = measure_gaussian(flags, solver, count, generator)
            cells.append(Measured(gaussian, solver, count, fidelity))
            if problems:
                process = build_process(flags.chain, solver, count)
                options = sampler_options(solver, flags.chain)
                fidelity = measure(problems, process, options, flags.num_samples, generator)
                cells.append(Measured("oracle", solver, count, fidelity))
        print(f"{solver.title}: done", file=sys.stderr)
    return sorted(cells, key=lambda cell: cell.problem)  # stable: solvers keep their order


def write_results(flags: FidelityFlags, cells: list[Measured]) -> Path:
    """JSON, Markdown and PNG; returns the path of the JSON."""
    today = datetime.date.today().isoformat()
    folder = Path(flags.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"solver_fidelity_{today}.json"
    shown = {name: value for name, value in vars(flags).items() if name != "output_dir"}
    shown["data_dir"] = Path(flags.data_dir).name
    record = {
        "date": today,
        "flags": shown,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "results": [
            {
                "problem": cell.problem,
                "solver": cell.solver.name,
                "spacing": cell.solver.spacing,
                "num_steps": cell.num_steps,
                **dataclasses.asdict(cell.fidelity),
            }
            for cell in cells
        ],
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(format_tables(cells), encoding="utf-8")
    draw(cells).savefig(path.with_suffix(".png"), dpi=110)
    return path


def main(argv: list[str] | None = None) -> int:
    """Measures, writes, prints; returns the exit code."""
    flags = from_args(FidelityFlags, create_parser().parse_args(argv))
    cells = measure_all(flags)
    path = write_results(flags, cells)
    print(format_tables(cells))
    for problem in dict.fromkeys(cell.problem for cell in cells):
        errors = [c.fidelity.variance_standard_error for c in cells if c.problem == problem]
        middle = 100 * float(np.median(errors))
        print(f"{problem}: the error of the variance is known to ±{middle:.2f} % (median)")
    print(f"written: {path} and its .md and .png")
    return 0


if __name__ == "__main__":
    run_main(main)
