"""Bits per dimension of images under a diffusion model: results.json and nll.npz in the log folder.

one process:  python image_nll.py --model_path MODEL --data_dir FOLDER $MODEL_FLAGS $DIFFUSION_FLAGS
4 GPUs:       torchrun --nproc_per_node 4 image_nll.py (the same)
or:           mpiexec -n 4 python image_nll.py (the same)

Every image takes as many network evaluations as the process has steps. Stop it at any time; run
again with the same --output_dir, it goes on.
"""

from __future__ import annotations

from image_ddpm.flags import (
    ImageDiffusionFlags,
    ImageModelFlags,
    LabelFlags,
    NLLFlags,
    PresetFlags,
    apply_presets,
    with_folders,
)
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        preset=PresetFlags,
        model=ImageModelFlags,
        diffusion=ImageDiffusionFlags,
        data=LabelFlags,
        likelihood=NLLFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, builds, measures; returns the exit code."""
    args = apply_presets(create_parser().parse_args(argv))
    from image_ddpm.networks import follow_denoiser

    args = follow_denoiser(args)
    flags, process = from_args(ImageModelFlags, args), from_args(ImageDiffusionFlags, args)
    data, nll = from_args(LabelFlags, args), with_folders(from_args(NLLFlags, args))
    from image_ddpm.nll import dry_run, finish_measure, load_measure, require_settings
    from image_ddpm.parts import PartStore
    from utils.debug_util import report_cost
    from utils.files.lock import lock_notice
    from utils.runs.start import started

    with started(args, nll, has_group=False) as run:
        log = run.logger.info
        all_flags = flags, process, data, nll
        measure = load_measure(all_flags, run.device, log)
        if nll.debug_mode:
            report_cost(measure.model, run.device, log)
        if nll.dry_run:
            dry_run(measure, log)
        else:
            require_settings(all_flags, measure.listed)
            if notice := lock_notice(nll.output_dir):
                log(notice)
            store = PartStore(nll.output_dir, measure.num_images)
            measure.run(store, run.launch.rank, run.launch.world_size)
            finish_measure(store, nll.output_dir, measure.num_images, log)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
