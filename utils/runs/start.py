"""How every script's work begins and ends: process group, device, seed, log, exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from utils import dist_util
from utils.debug_util import describe_memory
from utils.files.atomic import JsonObject, is_remote
from utils.files.lock import chosen_kind
from utils.files.records import versions
from utils.flags.groups import Logged
from utils.log_formats import chosen_formats, chosen_tracker
from utils.logger import RunLogger
from utils.machine.launch import Launch, read_launch
from utils.machine.threads import tune_allocator
from utils.process.errors import EXIT_DONE, EXIT_STOPPED
from utils.process.stop import StopRequested
from utils.script_util import PRIVATE, with_values


@dataclass
class Run:
    """A started script: where it computes, where it logs, how it ends.

    Attributes:
        is_done: False where a loop says that it was stopped; a `StopRequested` sets it, too.
    """

    logger: RunLogger
    device: torch.device
    launch: Launch
    is_done: bool = True

    @property
    def exit_code(self) -> int:
        """What the script's `main` returns behind the `with` block."""
        return EXIT_DONE if self.is_done else EXIT_STOPPED


@contextlib.contextmanager
def started(args: argparse.Namespace, flags: Logged, *, has_group: bool = True) -> Iterator[Run]:
    """Join the other processes, seed torch, open the log and write `args.json`; end in order.

    At the end `--debug_mode` says what memory is in use and `--dry_run` that nothing was written.
    A `StopRequested` ends the block, not the script: it says so, and `Run.exit_code` tells.

    Args:
        args: the parsed flags, with `notices`, lines that settling them has left to be said.
        flags: those of `args` that say where to log, with the values that the script has settled;
            a dry run has no log.
        has_group: False for work that needs no talk between processes.

    Raises:
        ValueError: if the folder is remote, or the environment asks for another format, tracker or
            kind of locks than there is.
    """
    is_dry = getattr(flags, "dry_run", False)
    if not is_dry and is_remote(flags.log_dir):
        raise ValueError(f"--log_dir {flags.log_dir} is remote; logs are kept on this machine")
    launch = read_launch(os.environ, getattr(args, "local_rank", 0))
    with dist_util.process_group(
        launch if has_group else dist_util.single_process(launch)
    ) as device:
        torch.manual_seed(getattr(args, "seed", 0))
        is_tuned = device.type == "cpu" and tune_allocator()
        is_main = launch.rank == 0
        formats, tracker = chosen_formats(os.environ), chosen_tracker(os.environ)
        chosen_kind(os.environ)
        folder = flags.log_dir if is_main and not is_dry else None
        logger = RunLogger(folder, is_quiet=not is_main, formats=formats)
        run = Run(logger, device, launch)
        try:
            described = _write_args(run, with_values(args, **vars(flags)))
            if tracker is not None:
                logger.track(tracker, described)
            for line in getattr(args, "notices", ()):
                (logger.remind if line.startswith("warning: ") else logger.info)(line)
            if is_tuned:
                logger.note("allocator: keeps freed memory (TUNED_MALLOC=0 switches this off)")
            yield run
            if getattr(flags, "debug_mode", False):
                logger.info(describe_memory(device))
            if is_dry:
                logger.info("dry run: nothing was written")
        except StopRequested as request:
            logger.info(str(request))
            run.is_done = False
        finally:
            logger.close()


def _write_args(run: Run, args: argparse.Namespace) -> JsonObject:
    """Write `args.json`, and the same for each script, which stays when another one comes."""
    script = os.path.splitext(os.path.basename(sys.argv[0]))[0]
    described = describe_run(args, run.device, run.launch)
    run.logger.write_args(described)
    run.logger.write_args(described, f"args_{script}.json")
    return described


def describe_run(args: argparse.Namespace, device: torch.device, launch: Launch) -> JsonObject:
    """The content of `args.json`: all flags after resolution and everything to repeat the run."""
    return {
        "flags": {key: value for key, value in vars(args).items() if key not in PRIVATE},
        "command": [sys.executable, *sys.argv],
        "git_revision": git_revision(),
        "versions": versions(),
        "device": device_name(device),
        "world_size": launch.world_size,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def git_revision() -> str:
    """The commit of the toolkit's checkout; outside of one `TOOLKIT_REVISION`, or `unknown`."""
    revision = os.environ.get("TOOLKIT_REVISION") or "unknown"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    try:
        answer = subprocess.run(
            ["git", "-C", root, "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return revision
    return answer.stdout.strip() or revision


def device_name(device: torch.device) -> str:
    """The GPU, or how a CPU is used."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
