"""The whole experiment in minutes on real photographs: ``make demo``, or ``make demo QUICK=1``.

Prints each command before it runs it. Stop it at any time; run again, it goes on where it was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from sr_var.demo import (
    CPU,
    GPU,
    ITAKURA_SAITO,
    QUICK,
    Preset,
    commands,
    in_plain_words,
    oracle_commands,
)
from utils.process.errors import EXIT_DONE, run_main
from utils.runs.job import run_scripts
from utils.script_util import flag, from_args, make_parser, require_at_least


@dataclass(frozen=True)
class DemoFlags:
    """How much of it."""

    quick: bool = flag(False, "about a minute, for a first look and for continuous integration")
    seed: int = flag(0, "of weights, data and noise; others than 0 have folders of their own")

    def __post_init__(self) -> None:
        require_at_least(self, seed=0)


def pick_preset(flags: DemoFlags) -> Preset:
    """By device: larger where a GPU is."""
    if flags.quick:
        return QUICK.with_seed(flags.seed)
    import torch

    return (GPU if torch.cuda.is_available() else CPU).with_seed(flags.seed)


def main(argv: list[str] | None = None) -> int:
    """Run all commands of the preset; return the exit code of the one that did not finish."""
    args = make_parser(__doc__, demo=DemoFlags).parse_args(argv)
    preset = pick_preset(from_args(DemoFlags, args))
    steps = commands(preset) + oracle_commands(preset)
    started = time.monotonic()
    if (code := run_scripts(steps)) != EXIT_DONE:
        return code
    print(f"\ndone in {(time.monotonic() - started) / 60:.1f} min\n")
    print(*in_plain_words(preset), sep="\n")
    print(f"\nphotographs: {preset.log_dir}/report.html (open it in a browser)")
    print(f"the truth:   {preset.oracle.log_dir(ITAKURA_SAITO)}/report.html")
    print(f"pictures:    {preset.log_dir}/overview.png and panels/")
    print(f"samples:     outputs/ddpm_sr/{preset.name}/")
    print("TensorBoard: tensorboard --logdir logs")
    return EXIT_DONE


if __name__ == "__main__":
    run_main(main)
