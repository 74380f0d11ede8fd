"""The whole experiment in minutes on real photographs: ``make demo``, or ``make demo QUICK=1``.

Before each step it says what the step does and what is left of all of them, and prints the command.
Stop it at any time; run again, it goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass

from sr_var.demo.commands import CPU, GPU, ITAKURA_SAITO, QUICK, Preset
from sr_var.demo.steps import demo_steps, record_path, what_was_trained
from sr_var.demo.words import in_plain_words
from utils.process.errors import EXIT_DONE, run_main
from utils.runs.scripts import read_times, run_steps
from utils.script_util import flag, from_args, make_parser, require_at_least


@dataclass(frozen=True)
class DemoFlags:
    """How much of it."""

    quick: bool = flag(False, "about a minute, for a first look and for continuous integration")
    seed: int = flag(0, "of weights, data and noise; others than 0 have folders of their own")

    def __post_init__(self) -> None:
        require_at_least(self, seed=0)


def pick_preset(flags: DemoFlags) -> Preset:
    """By device: larger where a GPU is, in bf16 where a CPU has arithmetic for it."""
    if flags.quick:
        return QUICK.with_seed(flags.seed)
    import torch

    from utils.fp16_util import trains_in_bf16

    if torch.cuda.is_available():
        return GPU.with_seed(flags.seed)
    return CPU.with_bf16(trains_in_bf16()).with_seed(flags.seed)


def main(argv: list[str] | None = None) -> int:
    """Run all commands of the preset; return the exit code of the one that did not finish."""
    args = make_parser(__doc__, demo=DemoFlags).parse_args(argv)
    preset = pick_preset(from_args(DemoFlags, args))
    record = record_path(preset)
    if (code := run_steps(demo_steps(preset), record)) != EXIT_DONE:
        return code
    print("", *what_was_trained(preset, read_times(record)), *in_plain_words(preset), sep="\n")
    print(f"\nphotographs: {preset.log_dir}/report.html (open it in a browser)")
    print(f"the truth:   {preset.oracle.log_dir(ITAKURA_SAITO)}/report.html")
    print(f"pictures:    {preset.log_dir}/overview.png and panels/")
    print(f"all metrics: {preset.log_dir}/logs.txt and results.json")
    print(f"samples:     outputs/ddpm_sr/{preset.name}/")
    print(f"step times:  {record}")
    print("TensorBoard: .venv/bin/tensorboard --logdir logs")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
