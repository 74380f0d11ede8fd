"""Trains a diffusion model that draws high-res images given their low-res version.

one process:  python ddpm_sr_train.py $MODEL_FLAGS $DIFFUSION_FLAGS $SCRIPT_FLAGS
4 GPUs:       torchrun --nproc_per_node 4 ddpm_sr_train.py (the same)
go on:        the same command with --resume_checkpoint auto
a folder:     --data_dir FOLDER alone trains on all images below it, without a list of them
"""

from __future__ import annotations

from functools import partial

from ddpm.flags import DiffusionFlags
from sr_var.flags.nets import PresetFlags, apply_presets
from sr_var.flags.scripts import DataFlags, DDPMTrainFlags, SRDiffusionModelFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        preset=PresetFlags,
        model=SRDiffusionModelFlags,
        diffusion=DiffusionFlags,
        data=DataFlags,
        training=DDPMTrainFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, trains; returns the exit code."""
    args = apply_presets(create_parser().parse_args(argv))
    from sr_var.base_dataset import without_info_dict
    from sr_var.stored_flags import follow_run

    args = without_info_dict(follow_run(args))
    flags = from_args(SRDiffusionModelFlags, args)
    process_flags, data_flags = from_args(DiffusionFlags, args), from_args(DataFlags, args)
    train = from_args(DDPMTrainFlags, args)
    from ddpm.process import (
        create_diffusion,
        create_schedule_sampler,
        denoiser_identity,
        training_process,
    )
    from ddpm.stored_flags import class_names
    from sr_var.ddpm_sr_utils import SRDiffusionTrainLoop, load_diffusion_data
    from sr_var.degrade.view import View
    from sr_var.script_util import create_sr_model, denoiser_flags
    from utils.loops.networks import new_network
    from utils.runs.start import started

    with started(args, train) as run:
        log = run.logger.info
        create = partial(create_sr_model, **denoiser_flags(flags, process_flags))
        model = new_network(create, train.asked_precision, log)
        process_flags = training_process(process_flags, log)
        diffusion = create_diffusion(process_flags)
        sampler = create_schedule_sampler(train.schedule_sampler, diffusion)
        view = View.of(flags, train.seed, "diffusion")
        num_labels = flags.num_labels
        data = load_diffusion_data(data_flags, view, train, sampler, run.device, log, num_labels)
        loop = SRDiffusionTrainLoop(
            model=model,
            diffusion=diffusion,
            schedule_sampler=sampler,
            data=data,
            class_names=class_names(data.dataset.entries) if flags.class_cond else [],
            identity=denoiser_identity(flags.network_class, flags, process_flags, is_training=True),
            logger=run.logger,
            **train.common(),
        )
        run.is_done = loop.run_loop()
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
