"""Draws samples of high-res images given their low-res version; stop it and run it again at will.

    one process:  python ddpm_sr_sample.py $MODEL_FLAGS $GD_FLAGS $SCRIPT_FLAGS
    4 GPUs:       torchrun --nproc_per_node 4 ddpm_sr_sample.py (the same)
    of images that are low-res already: --base_samples samples_100x64x64x3.npz

Processes may share --output_dir; a checkpoint of ddpm_sr_train.py has MODEL_FLAGS and GD_FLAGS.
"""

from __future__ import annotations

from ddpm.flags import DiffusionFlags
from sr_var.flags.base_samples import BaseSampleFlags, with_base_samples
from sr_var.flags.nets import PresetFlags, apply_presets
from sr_var.flags.scripts import SampleFlags, SRDiffusionModelFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        preset=PresetFlags,
        model=SRDiffusionModelFlags,
        diffusion=DiffusionFlags,
        sampling=SampleFlags,
        base=BaseSampleFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, samples; returns the exit code."""
    args = with_base_samples(apply_presets(create_parser().parse_args(argv)))
    from sr_var.stored_flags import follow_denoiser

    args = follow_denoiser(args)
    flags, process_flags = from_args(SRDiffusionModelFlags, args), from_args(DiffusionFlags, args)
    sample, of_base = from_args(SampleFlags, args), from_args(BaseSampleFlags, args)
    from ddpm.process import create_diffusion, warn_of_lost_std
    from ddpm.stored_flags import start_of_file
    from sr_var.data.low_res import load_low_res
    from sr_var.degrade.view import View
    from sr_var.results.together import put_together
    from sr_var.sampling import SRSampler, load_denoiser, require_same_samples
    from utils.runs.start import started

    with started(args, sample, has_group=False) as run:
        log = run.logger.info
        model = load_denoiser(flags, process_flags, sample.model_path, log)
        warn_of_lost_std(diffusion := create_diffusion(process_flags), log)
        names = start_of_file(sample.model_path).class_names or [""] * flags.num_classes
        known = names if flags.class_cond else None
        view = View.of_test(flags, sample.seed, sample.test_degradation, log)
        images = load_low_res(of_base, sample, view, known, run.device, log)
        sampler = SRSampler(
            model=model.to(run.device),
            diffusion=diffusion,
            images=images,
            sizes=flags.sizes,
            flags=sample,
            class_names=names,
            device=run.device,
            log=log,
        )
        if sample.debug_mode:
            sampler.report_cost()
        if sample.dry_run:
            sampler.dry_run()
        else:
            require_same_samples(flags, process_flags, sample, view)
            run.is_done = sampler.run_loop(run.launch.rank, run.launch.world_size)
            if run.is_done and of_base.output_npz:
                put_together(images.entries, sample, flags, log)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
