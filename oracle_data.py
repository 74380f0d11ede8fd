"""Writes a data set whose conditional law is known: images, exact samples and exact moments.

    python oracle_data.py --data_dir data/demo --output_dir data/oracle

Photographs of --data_dir are cut into low-res images; the high-res images are drawn from the law of
docs/oracle.md. Train and test the nets on it as on any other data (--data_dir data/oracle/images,
info dicts in data/oracle); then sr_var_verification.py --ddpm_sr_output_dir outputs/oracle/default
compares them with exact samples and with the exact mean and variance.

    python oracle_data.py --num_classes 2 …

draws from the class law: images have labels, for nets with --class_cond True --num_classes 2, and
there are two folders of samples and moments, given X alone and given X and the label.

    python oracle_data.py --degradation 'area & noise:25' …        (or 'area & mask:0.5')

is for denoising nets and those that fill in pixels: what they see is exact, as images are floats.
"""

from __future__ import annotations

from sr_var.flags.scripts import OracleDataFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, data=OracleDataFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, draws, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(OracleDataFlags, args)
    from sr_var.data.oracle import write_oracle
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        write_oracle(flags, run.logger.info)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
