"""Judges generated images against real ones: Fréchet and kernel distance; in pairs PSNR and SSIM.

    python image_eval.py --reference data/real --samples outputs/samples.npz
    python image_eval.py --reference data/real --samples outputs/samples.npz
        --features checkpoints/mnist/clean/model020000.pt --features_network small_cnn
    python image_eval.py --reference data/real --samples outputs/samples.npz
        --features checkpoints/64x64_classifier.pt --features_network encoder_unet
        --image_size 64 --classifier_depth 4
    python image_eval.py --reference data/real --samples outputs/enhanced --paired True

--reference and --samples: a folder of images; an .npz with arr_0, uint8 (N, H, W, C) images or
float (N, D) features; or an .npz of statistics as --save_reference_stats writes it.

A Fréchet distance of finite samples is never 0: it is printed with its floor, that of two halves of
the reference. Formulas and measured floors: docs/quality.md.
"""

from __future__ import annotations

from image_ddpm.flags import ClassifierFlags, ClassifierImageFlags
from image_ddpm.quality.flags import ENCODER, EvalFlags, require_use_of_classifier_flags
from utils.process.errors import EXIT_DONE, EXIT_STOPPED, run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        evaluation=EvalFlags,
        images_of_encoder_unet=ClassifierImageFlags,
        encoder_unet=ClassifierFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, compares, writes; returns the exit code."""
    args = create_parser().parse_args(argv)
    flags = from_args(EvalFlags, args)
    require_use_of_classifier_flags(flags, args.given_flags)
    if flags.features_network == ENCODER:
        from image_ddpm.networks import follow_features

        args = follow_features(args)
    image, classifier = from_args(ClassifierImageFlags, args), from_args(ClassifierFlags, args)
    from image_ddpm.quality.evaluation import evaluate
    from utils.debug_util import describe_memory
    from utils.runs.start import started

    with started(args, None if flags.dry_run else flags.log_dir, has_group=False) as run:
        is_done = evaluate(flags, classifier, image, run.logger)
        if flags.debug_mode:
            run.logger.info(describe_memory(run.device))
        return EXIT_DONE if is_done else EXIT_STOPPED


if __name__ == "__main__":
    run_main(main)
