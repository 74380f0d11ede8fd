"""Learning with noisy labels: a classifier trained on them converges to their law.

    train a clean net:    python mnist_classification.py
    make noisy labels:    python mnist_classification.py --task generate_noisy_label $NOISE_FLAGS
    train on them:        python mnist_classification.py --task train_on_noisy_label $NOISE_FLAGS
    compare with q:       python mnist_classification.py --task predict_analysis $NOISE_FLAGS
    draw both:            python mnist_classification.py --task draw_pictures $NOISE_FLAGS
    go on:                the same command with --resume_checkpoint auto

with NOISE_FLAGS="--noise_type fix --alpha 0.6", say.

Labels of --noise_type model are made by the net of --task train. mnist_data.py makes the data.
"""

from __future__ import annotations

from noisy_label.flags import LabelTrainFlags, NetFlags, NoiseFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, noise=NoiseFlags, model=NetFlags, training=LabelTrainFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, does the task; returns the exit code."""
    args = create_parser().parse_args(argv)
    noise, net = from_args(NoiseFlags, args), from_args(NetFlags, args)
    train = from_args(LabelTrainFlags, args)
    from noisy_label.tasks import run_task, with_folders
    from utils.runs.start import started

    train = with_folders(noise, train)
    with started(args, train) as run:
        run.is_done = run_task(noise, net, train, run.logger)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
