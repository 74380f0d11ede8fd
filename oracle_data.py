"""Writes a data set whose conditional law is known: images, exact samples and exact moments.

    python oracle_data.py --data_dir data/demo --output_dir data/oracle

Photographs of --data_dir are cut into low-res images; the high-res images are drawn from the law of
docs/oracle.md. Train and test the nets on it as on any other data (--data_dir data/oracle/images,
info dicts in data/oracle); then sr_var_verification.py --ddpm_sr_output_dir outputs/oracle/default
compares them with exact samples and with the exact mean and variance.
"""

from __future__ import annotations

from sr_var.flags.scripts import OracleDataFlags
from utils.process.errors import EXIT_DONE, EXIT_STOPPED, run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, data=OracleDataFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, draws, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(OracleDataFlags, args)
    from sr_var.data.oracle import write_oracle
    from utils.debug_util import describe_memory
    from utils.runs.start import started

    with started(args, None if flags.dry_run else flags.log_dir, has_group=False) as run:
        is_done = write_oracle(flags, run.logger.info)
        if flags.debug_mode:
            run.logger.info(describe_memory(run.device))
        return EXIT_DONE if is_done else EXIT_STOPPED


if __name__ == "__main__":
    run_main(main)
