"""Draws samples from a diffusion model of images: samples_NxHxWxC.npz in the log folder.

one process:  python image_sample.py --model_path ema_0.9999_200000.pt $MODEL_FLAGS $DIFFUSION_FLAGS
4 GPUs:       torchrun --nproc_per_node 4 image_sample.py (the same)
or:           mpiexec -n 4 python image_sample.py (the same)

A checkpoint of image_train.py needs no flags beside --model_path: it keeps them. Fewer steps:
--timestep_respacing 250, or ddim250 with --use_ddim True, or logsnr25 with --sampler dpmpp_2m.
Stop it at any time; run again with the same --output_dir, it draws what is missing.
"""

from __future__ import annotations

import os

from image_ddpm.flags import (
    ClassifierPresetFlags,
    GuideFlags,
    ImageDiffusionFlags,
    ImageModelFlags,
    ImageSampleFlags,
    PresetFlags,
    apply_presets,
    guide_flags,
    with_folders,
)
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser
from utils.sizes import Size


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        preset=PresetFlags,
        classifier_preset=ClassifierPresetFlags,
        model=ImageModelFlags,
        diffusion=ImageDiffusionFlags,
        sampling=ImageSampleFlags,
        classifier_guidance=GuideFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, samples; returns the exit code."""
    args = apply_presets(create_parser().parse_args(argv))
    from image_ddpm.networks import follow_denoiser, follow_guide
    from image_ddpm.sampling import load_sampler, require_settings, with_each_label

    args = with_each_label(follow_guide(follow_denoiser(args)))
    flags, process = from_args(ImageModelFlags, args), from_args(ImageDiffusionFlags, args)
    sample = with_folders(from_args(ImageSampleFlags, args))
    guide = guide_flags(args)
    from image_ddpm.sample_files import finish_and_draw
    from utils.images.rows import samples_path
    from utils.runs.start import started

    with started(args, sample, has_group=False) as run:
        log = run.logger.info
        sampler = load_sampler(flags, process, sample, guide, run.device, log)
        if sample.debug_mode:
            sampler.report_cost()
        if sample.dry_run:
            sampler.dry_run()
            return run.exit_code
        shape = (sample.num_samples, *Size.of(flags.image_size), flags.in_channels)
        path = samples_path(sample.output_dir, shape)
        require_settings(path, flags, process, sampler, guide)
        if not os.path.exists(path):
            run.is_done = sampler.run_loop(run.launch.rank, run.launch.world_size)
        if run.is_done:
            names, store = sampler.class_names, sampler.store
            wanted = sample.image_format if sample.png else ""
            finish_and_draw(store, path, shape, log, pictures=wanted, class_names=names)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
