"""Puts a run together: the networks in their precision, the frozen mean net.

What the scripts share, so that each of them stays a page.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from ddpm.stored_flags import start_of_file
from sr_var.flags.nets import FOLD_FIELD, BaselineModelFlags
from sr_var.flags.scripts import MeanModelFlags, MeanNetFlags, TestFlags, VarModelFlags
from sr_var.script_util import create_baseline_model, create_mean_model, create_var_model
from sr_var.stored_flags import flags_of_checkpoint, identity_of
from utils import dist_util
from utils.debug_util import report_cost
from utils.flags.groups import Compute
from utils.loops.checkpoint import manifest_beside
from utils.loops.data import TrainData
from utils.loops.networks import compiled_for, load_checked
from utils.process.errors import EXIT_DONE, EXIT_STOPPED, CheckpointError
from utils.test_util import TestLoop

if TYPE_CHECKING:
    import argparse

    import torch

    from models.unet import UNetBase
    from sr_var.data.folds import CrossFit
    from sr_var.results.folder import ResultFolder
    from utils.logger import RunLogger

Log = Callable[[str], None]


def _say_other_orientation(path: str, is_applied: bool, log: Log) -> None:
    """Says so where a network was trained on images that were read another way up."""
    made = manifest_beside(path).get("data")
    stored = made.get("apply_orientation") if isinstance(made, dict) else None
    if stored not in (None, is_applied):
        log(
            f"notice: {path} was trained with --apply_orientation {stored}, here it is "
            f"{is_applied}; photographs that lie on their side there and not here are new to it"
        )


def frozen_mean_net(
    path: str,
    args_file: str,
    sizes: tuple[int, int],
    compile: str,
    log: Log,
    *,
    args_flag: str = "--mean_model_args_path",
) -> torch.nn.Module:
    """The mean net that the variance task stands on, built from its own stored flags.

    Args:
        path: of its checkpoint.
        args_file: its model flags, for a checkpoint whose manifest does not tell them.
        sizes: (large, small) of the task.
        compile: see ``utils.loops.networks``.
        log: receives notices.
        args_flag: the flag that named ``args_file``; empty if nobody did.

    Raises:
        CheckpointError: if a file is missing or does not fit, or the net is for other sizes.
    """
    if not path:
        raise CheckpointError("--mean_model_path is empty; give the checkpoint of the mean net")
    start = start_of_file(path)
    flags = flags_of_checkpoint(
        start, args_file, MeanModelFlags, log, path_flag=args_flag, must_exist=bool(args_flag)
    )
    net = MeanModelFlags(**flags)
    if net.sizes != sizes:
        raise CheckpointError(
            f"the mean net {path} is for {net.small_size} → {net.large_size}, this run "
            f"for {sizes[1]} → {sizes[0]}; name a mean net of these sizes"
        )
    model = load_checked(
        partial(create_mean_model, **flags), path, net.precision, log, identity_of(net)
    )
    return compiled_for(model, compile, dist_util.current_device(), log, is_trained=False)


def mean_net_paths(flags: MeanNetFlags, cross_fit: CrossFit | None) -> list[str]:
    """The checkpoints of the mean net, or of the nets of each fold.

    Raises:
        ValueError: if ``--mean_model_path`` and ``--cross_fit`` contradict each other.
    """
    is_pattern = FOLD_FIELD in flags.mean_model_path
    if cross_fit is None and is_pattern:
        raise ValueError(f"--mean_model_path {flags.mean_model_path}: give --cross_fit K with it")
    if cross_fit is None:
        return [flags.mean_model_path]
    if not is_pattern:
        raise ValueError(
            f"--mean_model_path {flags.mean_model_path!r} must contain {FOLD_FIELD} with "
            "--cross_fit: it stands for 0 to K - 1"
        )
    folds = map(str, range(cross_fit.num_folds))
    return [flags.mean_model_path.replace(FOLD_FIELD, fold) for fold in folds]


def frozen_means(
    flags: MeanNetFlags,
    cross_fit: CrossFit | None,
    sizes: tuple[int, int],
    compute: Compute,
    log: Log,
    args: argparse.Namespace,
) -> torch.nn.Module:
    """The frozen mean net; with a cross-fit, the nets of all folds as one (``FoldedMean``).

    ``args`` is the command line: which flags it has, and how it reads images.

    Raises:
        ValueError: if the flags contradict each other.
        CheckpointError: if a net is missing, does not fit, or has seen the fold it is for.
    """
    paths = mean_net_paths(flags, cross_fit)
    args_flag = "--mean_model_args_path" if "mean_model_args_path" in args.given_flags else ""
    for path in paths:
        _say_other_orientation(path, args.apply_orientation, log)
    load = partial(frozen_mean_net, sizes=sizes, compile=compute.compile, log=log)
    if cross_fit is None:
        return load(paths[0], flags.mean_model_args_path, args_flag=args_flag)
    from sr_var.data.folds import FoldedMean

    nets = []
    for fold, path in enumerate(paths):
        args_file = flags.mean_model_args_path.replace(FOLD_FIELD, str(fold))
        cross_fit.require_unseen(fold, path, manifest_beside(path).get("state", {}))
        nets.append(load(path, args_file, args_flag=args_flag))
    return FoldedMean(nets)


def report_leakage(
    model: torch.nn.Module, data: TrainData[Any], num_images: int, logger: RunLogger, step: int
) -> None:
    """Measures and logs what the variance net is spared by cross-fitting; all processes join.

    Nothing to measure without a cross-fit, or on no images.
    """
    from sr_var.data.folds import FoldedMean, measure_leakage

    if not isinstance(model, FoldedMean) or not num_images:
        return
    device = dist_util.current_device()
    found = measure_leakage(model.to(device), data.batches(0), num_images, device)
    names = ("in_fold", "out_of_fold", "ratio")
    logger.scalars({f"cross_fit/{name}": getattr(found, name) for name in names}, step)
    logger.info(
        f"squared residuals of {found.num_images} images, grey levels²: {found.in_fold:.4g} by the "
        f"nets that saw them, {found.out_of_fold:.4g} by the one that did not; ratio "
        f"{found.ratio:.3f}"
    )


def tested_model(
    flags: MeanModelFlags, test: TestFlags, apply_orientation: bool, log: Log
) -> torch.nn.Module:
    """The network to test.

    Args:
        flags: those of its checkpoint (``sr_var.stored_flags.follow_net``).
        test: which checkpoint, and how to compute.
        apply_orientation: how images are read.
        log: receives notices.

    Raises:
        CheckpointError: if a file is missing or does not fit.
    """
    _say_other_orientation(test.model_path, apply_orientation, log)
    create: Callable[..., UNetBase] = create_mean_model
    if isinstance(flags, VarModelFlags):
        create = create_var_model
    elif isinstance(flags, BaselineModelFlags):
        create = create_baseline_model
    network = load_checked(
        partial(create, **vars(flags)), test.model_path, flags.precision, log, identity_of(flags)
    )
    device = dist_util.current_device()
    return compiled_for(network, test.compile, device, log, is_trained=False)


def finish_test(loop: TestLoop, results: ResultFolder, test: TestFlags, log: Log) -> int:
    """Runs a test loop as its flags say, remembers its seconds; returns the exit code."""
    if test.dry_run:
        loop.dry_run()
        return EXIT_DONE
    if test.debug_mode:
        report_cost(loop.model, loop.device, log)
    is_done = loop.run_loop()
    loop.stopwatch.save(results.seconds_path)
    return EXIT_DONE if is_done else EXIT_STOPPED
