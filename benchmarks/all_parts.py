"""Runs every part in a process of its own and puts their targets into one table.

    python -m benchmarks.all_parts                  as the parts are by default
    python -m benchmarks.all_parts --short True     ten minutes on two cores (`make bench`)

A part that fails is named, the others run on, and the exit code is 1.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import has_diffusers
from utils.process.errors import run_main
from utils.script_util import flag, from_args, make_parser, require_known

ROOT = Path(__file__).resolve().parent.parent
# what fits into ten minutes; the narrower upsampler stands for the published one
_SHORT: dict[str, str] = {
    "verification": "--rounds 5 --time_limit 20",
    "sample_writing": "--rounds 2 --time_limit 30",
    "end_to_end": "--rounds 1 --max_step 4 --num_samples 4",
    "startup": "--rounds 2 --time_limit 40",
    "sampling_loop": "--rounds 5 --time_limit 60",
    "ranks": "--rounds 2 --time_limit 60 --num_samples 16",
    "train_step": "--rounds 2 --batch_size 8 --microbatch 8 --compile False",
    "convolutions": "--rounds 3 --time_limit 5",
    "forward": "--net small_16_64 --rounds 5 --time_limit 60",
    "ways": "--rounds 5 --time_limit 40",
    "limits": "--rounds 3",
    "methods": "--sides 256 --rounds 3 --time_limit 20",
}


@dataclass(frozen=True)
class AllFlags:
    """What to run."""

    parts: str = flag(",".join(_SHORT), "which, comma separated")
    short: bool = flag(False, "small networks and few rounds")
    output_dir: str = flag("", "folder of the results; empty: benchmarks/results")

    def __post_init__(self) -> None:
        """Refuse parts that there are not.

        Raises:
            ValueError: names the flag and what it may be.
        """
        require_known(self, parts=_SHORT)

    def command(self, part: str) -> list[str]:
        """The command of a part."""
        words = [sys.executable, "-m", f"benchmarks.{part}"]
        words += _SHORT[part].split() if self.short else []
        words += ["--output_dir", self.output_dir] if self.output_dir else []
        words += ["--peer", "False"] if part == "sampling_loop" and not has_diffusers() else []
        return words


def newest(folder: Path, part: str) -> Path:
    """The latest record of a part."""
    return max(folder.glob(f"{part}_????-??-??.json"), key=lambda path: path.stat().st_mtime)


def main(argv: list[str] | None = None) -> int:
    """Runs, then prints one table."""
    from benchmarks.record import RESULTS_DIR, format_all

    flags = from_args(AllFlags, make_parser(__doc__, benchmark=AllFlags).parse_args(argv))
    parts, failed, records = flags.parts.split(","), [], []
    if not has_diffusers():
        print("diffusers is not installed (requirements-bench.txt): it is left out")
    for number, part in enumerate(parts, 1):
        print(f"\n[{number}/{len(parts)}] {part}", flush=True)
        started = time.monotonic()
        code = subprocess.run(flags.command(part), cwd=ROOT).returncode
        print(f"{part}: {time.monotonic() - started:.0f} s, exit code {code}", flush=True)
        if code:
            failed.append(part)
            continue
        folder = Path(flags.output_dir) if flags.output_dir else RESULTS_DIR
        records.append(json.loads(newest(ROOT / folder, part).read_text(encoding="utf-8")))
    print(f"\n{format_all(records)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    run_main(main)
