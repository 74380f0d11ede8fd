"""What every script does around its work: process group, device, seed, log, `args.json`."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from utils import dist_util
from utils.files.atomic import JsonObject, is_remote
from utils.logger import RunLogger
from utils.machine.launch import Launch, read_launch
from utils.machine.threads import tune_allocator
from utils.script_util import PRIVATE, with_values

_PACKAGES = ("torch", "numpy", "Pillow", "blobfile", "tensorboardX")


@dataclass(frozen=True)
class Run:
    """A started script: where it computes and where it logs."""

    logger: RunLogger
    device: torch.device
    launch: Launch

    def write_args(self, args: argparse.Namespace, **settled: Any) -> None:
        """Write `args.json`; call it again with the values that a checkpoint has settled.

        `args_<script>.json` says the same and stays when another script uses the folder.
        """
        script = os.path.splitext(os.path.basename(sys.argv[0]))[0]
        described = describe_run(with_values(args, **settled), self.device, self.launch)
        self.logger.write_args(described)
        self.logger.write_args(described, f"args_{script}.json")


@contextlib.contextmanager
def started(
    args: argparse.Namespace, log_dir: str | None, *, has_group: bool = True
) -> Iterator[Run]:
    """Join the other processes, seed torch, open the log and write `args.json`.

    Args:
        args: the parsed flags; `seed`, `local_rank` and `notices`, lines that settling them
            has left to be said, are read where they exist.
        log_dir: None (a dry run) writes nothing.
        has_group: False for work that needs no talk between processes.

    Raises:
        ValueError: if the folder is remote.
    """
    if log_dir is not None and is_remote(log_dir):
        raise ValueError(f"--log_dir {log_dir} is remote; logs are kept on this machine")
    launch = read_launch(os.environ, getattr(args, "local_rank", 0))
    with dist_util.process_group(launch if has_group else dist_util.alone(launch)) as device:
        torch.manual_seed(getattr(args, "seed", 0))
        is_tuned = device.type == "cpu" and tune_allocator()
        is_main = launch.rank == 0
        logger = RunLogger(log_dir if is_main else None, is_quiet=not is_main)
        run = Run(logger, device, launch)
        try:
            run.write_args(args)
            for line in getattr(args, "notices", ()):
                (logger.remind if line.startswith("warning: ") else logger.info)(line)
            if is_tuned:
                logger.note("allocator: keeps freed memory (TUNED_MALLOC=0 switches this off)")
            yield run
        finally:
            logger.close()


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


def versions() -> dict[str, str]:
    """Versions of python and of the libraries whose behaviour a result depends on."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def git_revision() -> str:
    """The commit of the toolkit's checkout, or `unknown` outside of one."""
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
        return "unknown"
    return answer.stdout.strip() or "unknown"


def device_name(device: torch.device) -> str:
    """The GPU, or how a CPU is used."""
    if device.type == "cuda":
        return f"{device} {torch.cuda.get_device_name(device)}"
    return f"cpu, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
