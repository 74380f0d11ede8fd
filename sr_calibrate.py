"""Finds the factor of the std with which intervals hold their level, on held-out images.

    python sr_calibrate.py --data_info_dict_path I --sr_model_output_dir N … --output_dir C
    then:  python sr_predict.py --calibration C/calibration.json …
    and:   python sr_var_verification.py --calibration C/calibration.json …

The images are photographs with their truth that neither trained the nets nor will test them; their
results (N) come from sr_mean_test.py and sr_var_test.py, or sr_baseline_test.py. The intervals are
mean ± λ·std. With R̂ the mean over n units of the share of pixels outside, and 1 - α the level:

    conformal      the smallest λ with (n R̂ + 1)/(n + 1) ≤ α: of a further unit a share of at least
                   1 - α lies inside, on average (n ≥ 9 at α = 0.1)
    risk_control   the smallest λ whose Hoeffding–Bentkus bound is ≤ α: the same with probability
                   1 - δ over calibrations (n ≥ 22 at α = δ = 0.1)

A unit is what is exchangeable: a photograph, not the tiles that it was cut into (--cluster). What
is unlike the calibration's images has no such promise. docs/calibration.md has the sources and
says what a shift does.
"""

from __future__ import annotations

from sr_var.flags.calibrate import CalibrateFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, calibration=CalibrateFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, calibrates, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(CalibrateFlags, args)
    from sr_var.calibrate.run import calibrate
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        calibrate(flags, run.logger.info)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
