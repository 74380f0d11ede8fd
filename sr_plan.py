"""Says what the whole experiment would take here: hours, disk, and the noise that would be left;
and how many images and samples the verdict of the verification takes (--margin, --pilot).

    python sr_plan.py --preset 64_256_upsampler
    python sr_plan.py --preset 128_512_upsampler --use_bf16 True --batch_size 8 --num_devices 1,4

Times some passes of each network with random weights; a minute on a GPU, a few on a CPU.
"""

from __future__ import annotations

import os

from ddpm.flags import DiffusionFlags
from sr_var.flags.nets import PresetFlags, apply_presets
from sr_var.flags.scripts import PlanFlags, SRDiffusionModelFlags
from utils.process.errors import run_main
from utils.script_util import FlagParser, from_args, make_parser


def create_parser() -> FlagParser:
    """The flags of this script."""
    return make_parser(
        __doc__,
        preset=PresetFlags,
        plan=PlanFlags,
        model=SRDiffusionModelFlags,
        diffusion=DiffusionFlags,
    )


def main(argv: list[str] | None = None) -> int:
    """Parses, times, prints; returns the exit code."""
    args = apply_presets(create_parser().parse_args(argv))
    network, process = from_args(SRDiffusionModelFlags, args), from_args(DiffusionFlags, args)
    flags = from_args(PlanFlags, args)
    from sr_var.plan import measure, net_hours, plan_rows, plan_text, plan_verdict
    from sr_var.verify.numbers.power import read_pilot
    from utils.files.atomic import write_json_atomic
    from utils.runs.start import device_name, started

    with started(args, flags, has_group=False) as run:
        log = run.logger.info
        pilot = read_pilot(flags.pilot) if flags.pilot else None
        rates = measure(network, process, flags, run.device, log)
        rows, nets = plan_rows(rates, flags, network.large_size), net_hours(rates, flags)
        where = device_name(run.device)
        log("\n" + plan_text(rates, nets, rows, where))
        plan = {"device": where, "seconds": vars(rates), "net_hours": nets, "sampling": rows}
        if flags.margin:
            said, plan["verdict"] = plan_verdict(flags, network, pilot)
            log("\n" + said)
        write_json_atomic(os.path.join(flags.log_dir, "plan.json"), plan)
    return run.exit_code


if __name__ == "__main__":
    run_main(main)
