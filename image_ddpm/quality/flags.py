"""The flags of `image_eval.py`; no torch, so that `--help` answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from dataclasses import dataclass

from image_ddpm.flags import ClassifierFlags, ClassifierImageFlags
from utils.flags.groups import Batch, OrientationFlags, ScriptFlags
from utils.script_util import defaults, flag, require_at_least, with_values

PIXELS = "pixels"
# the keys of image_ddpm.quality.features.NETWORKS, which needs torch
ENCODER = "encoder_unet"
TORCHSCRIPT = "torchscript"
NETWORK_NAMES = ("small_cnn", ENCODER, TORCHSCRIPT)
MAX_SUBSET_SIZE = 1000


@dataclass(frozen=True)
class EvalFlags(OrientationFlags, Batch, ScriptFlags):
    """Which two sets of images are compared, and by what."""

    reference: str = flag(
        "",
        "real images: a folder, an .npz of images, or an .npz of features or statistics",
        is_path=True,
    )
    batch: str = flag(
        "",
        "both at once, as two words: --batch REFERENCE SAMPLES; or the two words alone",
        is_path=True,
    )
    samples: str = flag("", "generated images, in the same forms", is_path=True)
    features: str = flag(
        PIXELS,
        "what is compared: pixels (8x8 areas), or a network's file, .pt or .safetensors",
        is_path=True,
    )
    features_network: str = flag("", "which network --features holds", NETWORK_NAMES)
    trust_features: bool = flag(
        False, "run the program in --features; of a TorchScript file of somebody you trust"
    )
    save_reference_stats: str = flag(
        "",
        ".npz to keep the features and statistics of --reference in, a later --reference",
        is_path=True,
    )
    num_images: int = flag(0, "images of each set, drawn by --seed; 0: all")
    batch_size: int = 64
    num_splits: int = flag(5, "random halvings of the reference behind the noise floor")
    num_subsets: int = flag(100, "subsets behind the kernel distance")
    subset_size: int = flag(
        0, f"images a subset; 0: half of the smaller set, at most {MAX_SUBSET_SIZE}"
    )
    paired: bool = flag(False, "image k of both sets shows the same: also PSNR and SSIM")
    log_dir: str = "logs/image_eval"

    def __post_init__(self) -> None:
        for name in ("reference", "samples"):
            if not getattr(self, name):
                raise ValueError(f"--{name} is missing: give a folder of images or an .npz file")
        require_at_least(self, batch_size=1, num_splits=1, num_subsets=2, seed=0)
        require_at_least(self, 0, num_images=2, subset_size=2)
        if not self.features:
            raise ValueError(f"--features is empty: give {PIXELS} or the file of a network")
        if self.features == PIXELS and self.features_network:
            raise ValueError(
                f"--features_network {self.features_network} needs its weights: --features PATH"
            )
        if self.features != PIXELS and not self.features_network:
            raise ValueError(
                f"--features {self.features} needs --features_network, one of "
                f"{', '.join(NETWORK_NAMES)}"
            )
        if (self.features_network == TORCHSCRIPT) != self.trust_features:
            raise ValueError(
                f"--features_network {self.features_network or PIXELS} with --trust_features "
                f"{self.trust_features}: a TorchScript file is a program, which may do anything "
                f"that you may; give --features_network {TORCHSCRIPT} --trust_features True for "
                "one of somebody you trust, and leave both out else"
            )
        if self.save_reference_stats and not self.save_reference_stats.endswith(".npz"):
            raise ValueError(f"--save_reference_stats {self.save_reference_stats} must end in .npz")


def with_batch(args: argparse.Namespace) -> argparse.Namespace:
    """The arguments with `--batch A B` as `--reference A --samples B`.

    Raises:
        ValueError: other than two words, or beside one of these flags.
    """
    if not args.batch:
        return args
    parts = [part for part in args.batch.split(",") if part]
    if len(parts) != 2 or args.reference or args.samples:
        raise ValueError(
            f"--batch {args.batch}: give the reference and the samples, as --batch ref.npz "
            "sample.npz, in place of --reference and --samples"
        )
    return with_values(args, reference=parts[0], samples=parts[1])


def require_use_of_classifier_flags(flags: EvalFlags, given: Collection[str]) -> None:
    """Refuse given flags that describe a classifier where there is none."""
    own = (*defaults(ClassifierFlags), *defaults(ClassifierImageFlags))
    unused = [f"--{name}" for name in own if name in given]
    if unused and flags.features_network != ENCODER:
        raise ValueError(
            f"{', '.join(unused)}: read for --features_network {ENCODER} only; leave out what "
            f"describes a classifier, or give its file and --features_network {ENCODER}"
        )
