"""The score that a trained denoiser stands for, against the exact one, by noise level.

    python -m benchmarks.score --model_path checkpoints/ddpm_sr/oracle/ema_0.99_002000.pt

By Tweedie's formula a denoiser is a score: ∇ log p(x_t | x) = (√ᾱ E[Y | x_t, x] − x_t) / (1 − ᾱ)
(docs/theory.md, eq. 68). On the oracle's law E[Y | x_t, x] is known. The denoiser is one of
ddpm_sr_train.py on files of oracle_data.py; docs/oracle.md has the commands and the table. Writes
`score_<date>.json` and `.md` to `--output_dir`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path.insert(0, str(ROOT))  # run as a file, it finds only its own folder

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from benchmarks.record import RESULTS_DIR, write_rows  # noqa: E402
from benchmarks.truth_data import judged_images, load_photos  # noqa: E402
from ddpm.flags import DiffusionFlags  # noqa: E402
from ddpm.process import create_diffusion, denoiser_identity  # noqa: E402
from diffusion.process import GaussianDiffusion  # noqa: E402
from diffusion.types import StepOptions  # noqa: E402
from oracle.denoiser import posterior_mean_of_y, score_of  # noqa: E402
from oracle.law import OracleLaw, oracle_law  # noqa: E402
from sr_var.flags.scripts import SRDiffusionModelFlags  # noqa: E402
from sr_var.script_util import create_sr_model, denoiser_flags  # noqa: E402
from sr_var.stored_flags import follow_denoiser  # noqa: E402
from utils.loops.networks import load_checked  # noqa: E402
from utils.metrics import HALF_RANGE_255  # noqa: E402
from utils.process.errors import EXIT_DONE, run_main  # noqa: E402
from utils.script_util import (  # noqa: E402
    FlagParser,
    flag,
    from_args,
    make_parser,
    require_at_least,
)

_BATCH = 16
Row = dict[str, float]


@dataclass(frozen=True)
class ScoreFlags:
    """Which denoiser, at which noise levels, on which images."""

    model_path: str = flag("", "checkpoint of a denoiser that was trained on the oracle's files")
    timesteps: str = flag(
        "0,50,100,200,300,400,600,800,999", "of its chain, comma separated: the rows of the table"
    )
    test_dir: str = flag(str(ROOT / "data/demo/test"), "photographs whose pieces are judged on")
    num_test_crops: int = flag(64, "low-res images, each with one draw of Y and of the noise")
    seed: int = flag(0, "of Y and of the noise")
    output_dir: str = flag(str(RESULTS_DIR), "folder of the two files")

    def __post_init__(self) -> None:
        require_at_least(self, num_test_crops=1, seed=0)
        _ = self.steps

    @property
    def steps(self) -> list[int]:
        """The parsed `timesteps`."""
        try:
            steps = [int(part) for part in self.timesteps.split(",")]
        except ValueError:
            steps = [-1]
        if min(steps) < 0:
            raise ValueError(
                f"--timesteps {self.timesteps!r} must be whole numbers from 0 on, as in 0,100,999"
            )
        return steps


def create_parser() -> FlagParser:
    """The flags of this script; those of network and process follow the checkpoint."""
    return make_parser(
        __doc__, model=SRDiffusionModelFlags, diffusion=DiffusionFlags, benchmark=ScoreFlags
    )


def normal_score(law: OracleLaw, x_t: Tensor, alpha_bar: Tensor) -> Tensor:
    """The score of independent normal pixels with the exact mean and variance of Y.

    What a denoiser knows that has learned two moments, and nothing of edges or of block means.
    """
    spread = alpha_bar * law.variance + 1.0 - alpha_bar
    return (alpha_bar.sqrt() * law.mean - x_t) / spread


def score_row(
    process: GaussianDiffusion,
    model: nn.Module,
    low_res: Tensor,
    factor: int,
    step: int,
    seed: int,
) -> Row:
    """The errors at one timestep, over one draw of each image; low-res images (N, 3, h, w).

    `sigma` is √(1/ᾱ − 1) in grey levels; `relative_mse` is Σ (s_θ − s)² / Σ s² of the score,
    `normal_relative_mse` the same of `normal_score`, `denoised_mse` ⟨(D_θ − D)²⟩ / ⟨v⟩.
    """
    alpha_bar = process.coefficients.alphas_cumprod[step]
    level = torch.tensor(float(alpha_bar), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    sums = dict.fromkeys(("net", "normal", "score", "denoised", "variance"), 0.0)
    for part in torch.split(low_res, _BATCH):
        law = oracle_law(part.double(), factor)
        noise = torch.empty_like(law.base).normal_(generator=generator)
        x_t = level.sqrt() * law.sample(generator) + (1 - level).sqrt() * noise
        exact = posterior_mean_of_y(law, x_t, level)
        t = torch.full((len(part),), step)
        options = StepOptions(clip_denoised=False, model_kwargs={"low_res": part})
        with torch.inference_mode():
            denoised = process.denoise(model, x_t.float(), t, options).double()
        score = score_of(exact, x_t, level)
        squares = {
            "net": score_of(denoised, x_t, level) - score,
            "normal": normal_score(law, x_t, level) - score,
            "score": score,
            "denoised": denoised - exact,
        }
        for name, values in squares.items():
            sums[name] += float(values.square().sum())
        sums["variance"] += float(law.variance.sum())
    return {
        "t": step,
        "sigma": float((1 / level - 1).sqrt()) * HALF_RANGE_255,
        "relative_mse": sums["net"] / sums["score"],
        "normal_relative_mse": sums["normal"] / sums["score"],
        "denoised_mse": sums["denoised"] / sums["variance"],
    }


def format_table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = [
        "| t | σ, grey levels | score: relative squared error | the same of a normal law with the "
        "exact mean and variance | E[Y \\| x_t]: squared error / variance of Y |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        shares = (row[name] for name in ("relative_mse", "normal_relative_mse", "denoised_mse"))
        cells = [f"{row['t']:g}", f"{row['sigma']:.3g}", *(f"{100 * one:.3g} %" for one in shares)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def load_denoiser(
    args: argparse.Namespace,
) -> tuple[nn.Module, GaussianDiffusion, SRDiffusionModelFlags]:
    """The network of the checkpoint in evaluation mode, its whole chain, its flags."""
    args = follow_denoiser(args)
    flags, process_flags = from_args(SRDiffusionModelFlags, args), from_args(DiffusionFlags, args)

    def create() -> Any:
        return create_sr_model(**denoiser_flags(flags, process_flags))

    identity = denoiser_identity(flags.network_class, flags, process_flags, is_training=False)
    model = load_checked(create, args.model_path, flags.asked_precision, print, identity)
    return model.eval(), create_diffusion(process_flags), flags


def main(argv: list[str] | None = None) -> int:
    """Judges, writes, prints; returns the exit code.

    Raises:
        ValueError: a timestep is not one of the chain.
    """
    args = create_parser().parse_args(argv)
    flags = from_args(ScoreFlags, args)
    model, process, sizes = load_denoiser(args)
    if max(flags.steps) >= process.num_timesteps:
        raise ValueError(
            f"--timesteps {flags.timesteps}: the chain of {flags.model_path} has "
            f"{process.num_timesteps}, from 0 on"
        )
    photos = load_photos(flags.test_dir, sizes.small_size, "--test_dir")
    low_res = judged_images(photos, flags.num_test_crops, sizes.small_size)
    factor = sizes.large_size // sizes.small_size
    rows = [score_row(process, model, low_res, factor, t, flags.seed) for t in flags.steps]
    write_rows("score", Path(flags.output_dir), vars(flags), rows, format_table(rows))
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
