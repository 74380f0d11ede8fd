"""Compares the nets' mean and variance with samples and real images; needs no GPU.

    python sr_var_verification.py --ddpm_sr_output_dir S --sr_model_output_dir N --log_dir L
    without samples:  python sr_var_verification.py --num_samples 0 --sr_model_output_dir N …

Per image, in grey levels and float64, then averaged over images (m, v: mean and variance of the
nets; x̄, k2: mean and unbiased variance of the samples; P: pixels and channels):

    mean.mse       mean over P of (m − x̄)²
    mean.psnr      10 log10(255² / mse), dB
    mean.nmse      Σ (m − x̄)² / Σ x̄²
    var.var_error  mean over P of |max(v, 0) − k2|
    var.std_error  mean over P of |√max(v, 0) − √k2|

A metric's noise floor is what the exact mean and variance would show against this many samples.
Over all pixels of all images, floors subtracted, as shares of the std and of the variance:

    mean.relative_rms_error root of (mse − mean k2/n) / mean k2
    var.relative_rms_error  root of (mean (v − k2)² − mean V̂) / mean (k2² − V̂), V̂ that of k2
    var.relative_bias       mean v / mean k2 − 1

--margin is what these three are held against: equivalent if the 90 % interval over images lies
within, different if above (the bias also if below). ceiling: how well k2 correlates with itself.
high_res: PSNR and SSIM of the means against the real image y. calibration: the nets' law and the
samples' against y (z2: mean (y − m)²/v; CRPS, NLL: low is good); reference: the same of an exact
law, and of so many exact samples of it. consistency: area(m) − X and the samples' std of block
means, both 0 for an exact law.
--num_samples 0 leaves out what needs samples: mean, ceiling, margin and most of var.
--calibration: the share of y in the intervals of sr_calibrate.py, beside that of a normal law.
Formulas: docs/theory.md; how to read them: docs/verification.md.
"""

from __future__ import annotations

from sr_var.flags.verify import VerificationFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, verification=VerificationFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, compares, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(VerificationFlags, args)
    from sr_var.verify.run import verify_all
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        verify_all(flags, run.logger)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
