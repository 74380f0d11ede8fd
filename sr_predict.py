"""Predicts mean, std and intervals of the high-res image of your own images, in two passes.

    an image:   python sr_predict.py --input cat.png --mean_model_path M.pt --var_model_path V.pt
    a folder:   python sr_predict.py --input photographs --output_dir DIR (the same)
    4 GPUs:     torchrun --nproc_per_node 4 sr_predict.py (the same)

Each image is the low-res image itself, of any size: it is not shrunk or cut before. The networks
are built from what their checkpoints say. Finished images are not computed again, and any number
of processes may share --output_dir. The documents are docs/python.md and docs/file_formats.md.
"""

from __future__ import annotations

from sr_var.flags.predict import NetPairFlags, PredictFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, networks=NetPairFlags, images=PredictFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, predicts; returns the exit code."""
    args = create_parser().parse_args(argv)
    nets, flags = from_args(NetPairFlags, args), from_args(PredictFlags, args)
    from sr_var.predict.predictor import Predictor
    from sr_var.predict.run import PredictRun
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        log = run.logger.info
        predictor = Predictor.from_flags(nets, flags, args.given_flags, run.device, log)
        work = PredictRun(predictor, flags, log)
        if flags.dry_run:
            work.dry_run()
        else:
            work.run(run.launch.rank, run.launch.world_size)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
