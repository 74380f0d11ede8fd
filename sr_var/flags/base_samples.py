"""The flags of low-res images that are sampled from as they are; no torch."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from utils.script_util import flag, with_values

_OF_HIGH_RES = ("data_dir", "pairs_dir", "to_sample_images_dict_path", "test_degradation")


@dataclass(frozen=True)
class BaseSampleFlags:
    """Low-res images in place of high-res ones that are reduced, and the samples in one file."""

    base_samples: str = flag(
        "",
        "low-res images to draw high-res ones of: an .npz as image_sample.py writes it (arr_0 "
        "NHWC, uint8 or what the network was trained on, arr_1 labels), or a folder of images; "
        "one sample each by default",
        is_path=True,
    )
    output_npz: bool = flag(
        False,
        "when all are drawn, put the samples into samples_NxHxWxC.npz too, with their labels "
        "where the network has classes",
    )


def with_base_samples(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with one sample of each base image, unless another number is given.

    Raises:
        ValueError: flags of high-res images beside them, or a range of values, which the checkpoint
            has.
    """
    if not args.base_samples:
        return args
    given = [f"--{name}" for name in _OF_HIGH_RES if name in args.given_flags]
    if given:
        raise ValueError(
            f"--base_samples {args.base_samples} are low-res images already: leave out "
            f"{' and '.join(given)}, which say what high-res ones are, or become"
        )
    if args.value_range:
        raise ValueError(
            f"--base_samples {args.base_samples} are in the unit that the checkpoint tells of: "
            "leave --value_range out"
        )
    if "num_samples_per_image" in args.given_flags:
        return args
    return with_values(args, num_samples_per_image=1)
