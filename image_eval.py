"""Judges generated images against real ones: Fréchet and kernel distance, precision and recall.

    python image_eval.py --reference data/real --samples outputs/samples.npz
    python image_eval.py --reference data/real --samples outputs/samples.npz
        --features checkpoints/mnist/clean/model020000.pt --features_network small_cnn
    python image_eval.py --reference data/real --samples outputs/samples.npz
        --features checkpoints/64x64_classifier.pt --features_network encoder_unet
        --image_size 64 --classifier_depth 4
    python image_eval.py --reference data/real --samples outputs/enhanced --paired True
    python image_eval.py --batch VIRTUAL_imagenet256.npz outputs/samples.npz --trust_features True
        --features inception.pt --features_network torchscript

--reference and --samples: a folder of images; an .npz with arr_0, uint8 (N, H, W, C) images or
float (N, D) features; an .npz of statistics as --save_reference_stats writes it, or as published
(mu, sigma, mu_s, sigma_s). Whatever a set has is compared: precision and recall need features, the
sFID spatial ones, the inception score class probabilities.

A Fréchet distance of finite samples is never 0: it is printed with its floor, that of two halves of
the reference. Formulas and measured floors: docs/quality.md.
"""

from __future__ import annotations

from image_ddpm.flags import ClassifierFlags, ClassifierImageFlags
from image_ddpm.quality.flags import (
    ENCODER,
    EvalFlags,
    require_use_of_classifier_flags,
    with_batch,
)
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    parser = make_parser(
        __doc__,
        evaluation=EvalFlags,
        images_of_encoder_unet=ClassifierImageFlags,
        encoder_unet=ClassifierFlags,
    )
    parser.flag_of_words = "batch"
    return parser


def main(argv: list[str] | None = None) -> int:
    """Parses, compares, writes; returns the exit code."""
    args = with_batch(create_parser().parse_args(argv))
    flags = from_args(EvalFlags, args)
    require_use_of_classifier_flags(flags, args.given_flags)
    if flags.features_network == ENCODER:
        from image_ddpm.networks import follow_features

        args = follow_features(args)
    image, classifier = from_args(ClassifierImageFlags, args), from_args(ClassifierFlags, args)
    from image_ddpm.quality.evaluation import evaluate
    from utils.runs.start import started

    with started(args, flags, has_group=False) as run:
        evaluate(flags, classifier, image, run.logger)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
