"""Makes a folder of labelled images for plain diffusion out of data that you already have.

no download:  python image_data.py                        (scikit-learn's 1797 handwritten digits)
CIFAR-10:     python image_data.py --source cifar10 --archive cifar-10-python.tar.gz
ImageNet:     python image_data.py --source imagenet --archive ILSVRC2012_img_train.tar
LSUN:         python image_data.py --source lsun --archive church_outdoor_train_lmdb

Run it again after a stop: what is there is kept. A file's name up to its first _ is its label.
"""

from __future__ import annotations

from image_ddpm.importers.flags import ImportFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, data=ImportFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, reads, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(ImportFlags, args).filled_in()
    from image_ddpm.importers.writer import import_images
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        import_images(flags, run.logger.info)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
