"""Tells apart whose error it is, on the oracle: nets, sampler, denoiser or Monte-Carlo noise.

    python oracle_budget.py --ddpm_sr_output_dir outputs/oracle/default --sr_model_output_dir N \
        --mean_model_step M --var_model_step V

Against the exact mean μ and variance v, over the test images of oracle_data.py:

    mean: error² / mean var        mean (m − μ)² / mean v, without the noise of n samples
    variance: error, rms relative  √(mean (v̂ − v)² / mean v²), likewise
    bias                           mean v̂ / mean v − 1

"variance net, given the exact mean" compares with v + (m − μ)², what the net was trained towards.
"""

from __future__ import annotations

from sr_var.flags.verify import BudgetFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, budget=BudgetFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, draws, compares; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(BudgetFlags, args)
    from sr_var.verify.run import write_budget
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        write_budget(flags, run.logger)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
