"""Scans a folder of images and writes the info dicts that say what to train and to test on.

    ImageNet:     python sr_data_info.py --data_dir ../datasets/imagenet/train \
                      --output_dir data/sr_imagenet
    photographs:  python sr_data_info.py --data_dir photos --test_share 0.2 --output_dir data/photos

Takes ImageNet-named files (n01440764_10026.JPEG), class folders, or photographs without a class;
the classes sorted by name give the labels. Test images are two of each class, or --test_share of
all images, drawn by the name of the file or its folder (--split_by), or those of --test_folder or
--test_list. Writes data_info.pkl, train_data_info.pkl and to_sample_data_info.pkl; another split is
replaced with --overwrite True alone. With --pairs_dir measured images are checked against those of
--data_dir: both must have the same names, and one whole factor between their sizes (pairs.json).
"""

from __future__ import annotations

from sr_var.flags.scripts import DataInfoFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(__doc__, data=DataInfoFlags)


def main(argv: list[str] | None = None) -> int:
    """Parses, scans, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(DataInfoFlags, args)
    from sr_var.data.info import write_info
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        write_info(flags, run.logger.info)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
