"""Writes a trained network for other programs: its weights, or what it computes.

    weights:  python export.py --model_path checkpoints/sr_mean/demo/model001500.pt \
                  --format safetensors --output_path outputs/export/mean

A safetensors file holds the weights and what the network is of; it needs nothing beside it, and
every script that takes a .pt file of weights takes it, too. docs/export.md says who reads what.
"""

from __future__ import annotations

from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser
from weights.flags import ExportFlags


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, export=ExportFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, reads, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(ExportFlags, args)
    from utils.runs.start import started
    from weights.export import export

    with started(args, flags, has_group=False) as run:
        export(flags, run.logger.info)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
