"""A page to try the networks in a browser, and the same by HTTP: see docs/app.md.

    the demo's networks:  make app
    your own:             python sr_app.py --mean_model_path M.pt --var_model_path V.pt
    with samples, too:    python sr_app.py … --diffusion_model_path ema_0.9999_200000.pt

Drop an image to see its mean, its std and the interval of any pixel. It listens at this machine
alone (--host). It needs Gradio: ./setup.sh app makes the environment .venv-app.
"""

from __future__ import annotations

from sr_var.flags.app import AppFlags, with_demo_nets
from sr_var.flags.predict import NetPairFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, networks=NetPairFlags, page=AppFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, loads the networks, serves until it is stopped; returns the exit code."""
    args = create_parser().parse_args(argv)
    nets, flags = with_demo_nets(from_args(NetPairFlags, args)), from_args(AppFlags, args)
    from image_train import create_parser as train_parser
    from sr_var.app.server import require_packages, serve
    from sr_var.app.training import Form
    from sr_var.predict.predictor import Predictor
    from utils.runs.start import started

    require_packages()
    with started(args, flags, has_group=False) as run:
        log = run.logger.info
        predictor = Predictor.from_flags(nets, flags, args.given_flags, run.device, log)
        serve(predictor, flags, Form(train_parser), log)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
