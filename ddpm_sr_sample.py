"""Draws samples of high-res images given their low-res version; stop it and run it again at will.

    one process:  python ddpm_sr_sample.py $MODEL_FLAGS $GD_FLAGS $SCRIPT_FLAGS
    4 GPUs:       torchrun --nproc_per_node 4 ddpm_sr_sample.py (the same)

Any number of processes may share --output_dir: each image is drawn by one of them. A checkpoint of
ddpm_sr_train.py needs no MODEL_FLAGS and GD_FLAGS: it keeps them.
"""

from __future__ import annotations

from functools import partial

from ddpm.flags import DiffusionFlags
from sr_var.flags.nets import PresetFlags, apply_presets
from sr_var.flags.scripts import SampleFlags, SRDiffusionModelFlags
from utils.flags.groups import Reading
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
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, samples; returns the exit code."""
    args = apply_presets(create_parser().parse_args(argv))
    from sr_var.stored_flags import follow_denoiser

    args = follow_denoiser(args)
    flags, process_flags = from_args(SRDiffusionModelFlags, args), from_args(DiffusionFlags, args)
    sample = from_args(SampleFlags, args)
    from ddpm.process import create_diffusion, denoiser_identity, warn_of_lost_std
    from ddpm.sampling import require_same_law
    from ddpm.stored_flags import start_of_file
    from sr_var.base_dataset import load_test_entries
    from sr_var.sampling import SRSampler
    from sr_var.script_util import create_sr_model, denoiser_flags
    from utils.loops.networks import load_checked
    from utils.runs.start import started

    with started(args, sample, has_group=False) as run:
        log = run.logger.info
        create = partial(create_sr_model, **denoiser_flags(flags, process_flags))
        identity = denoiser_identity(flags.network_class, flags, process_flags, is_training=False)
        model = load_checked(create, sample.model_path, flags.precision, log, identity)
        diffusion = create_diffusion(process_flags)
        warn_of_lost_std(diffusion, log)
        sizes = flags.sizes
        sampler = SRSampler(
            model=model.to(run.device),
            diffusion=diffusion,
            entries=load_test_entries(sample, sizes, log),
            sizes=sizes,
            flags=sample,
            class_names=start_of_file(sample.model_path).class_names,
            device=run.device,
            log=log,
        )
        if sample.debug_mode:
            sampler.report_cost()
        if sample.dry_run:
            sampler.dry_run()
        else:
            own = vars(Reading.of(sample))
            require_same_law(flags, process_flags, sample, own, {})
            run.is_done = sampler.run_loop(run.launch.rank, run.launch.world_size)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
