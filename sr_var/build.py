"""Puts a run together: the flags that decide, the networks in their precision, the frozen mean net.

What the scripts share, so that each of them stays a page.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from sr_var.flags import MeanModelFlags, MeanNetFlags, TestFlags, VarModelFlags
from sr_var.model_args import args_path, load_model_args, save_model_args, settle_model_flags
from sr_var.net_flags import FOLD_FIELD, QUANTILE, BaselineModelFlags
from sr_var.script_util import create_baseline_model, create_mean_model, create_var_model
from sr_var.start import start_at_usual_spread
from utils import dist_util
from utils.checkpoint import CheckpointStore, step_of
from utils.compile_util import compiled_for
from utils.compute_flags import ComputeFlags
from utils.data_util import TrainData
from utils.debug_util import report_cost
from utils.errors import EXIT_DONE, EXIT_STOPPED, CheckpointError
from utils.model_util import in_usable_precision, load_checked, new_network
from utils.test_util import TestLoop
from utils.train_flags import TrainFlags

if TYPE_CHECKING:
    import argparse

    import torch

    from models.unet import UNetBase
    from sr_var.cross_fit import CrossFit, FoldedMean
    from sr_var.results import ResultFolder
    from utils.logger import RunLogger

Train = TypeVar("Train", bound=TrainFlags)
Network = TypeVar("Network", bound="UNetBase")
Log = Callable[[str], None]


def settle_train_flags(
    args: argparse.Namespace, model_flags: MeanModelFlags, train: Train, log: Log
) -> tuple[dict[str, Any], Train]:
    """The model flags to build from, stored ones first, and the training flags that go with them.

    ``args`` is corrected too, so that ``args.json`` tells what was used.

    Raises:
        CheckpointError: if the run to resume has no stored flags or no checkpoint.
    """
    found = CheckpointStore(train.model_save_dir, warn=lambda line: None).resolve(
        train.resume_checkpoint
    )
    settled = _settle(args, model_flags, train.log_dir, is_resuming=found is not None, log=log)
    train = dataclasses.replace(train, use_fp16=settled["use_fp16"], use_bf16=settled["use_bf16"])
    return settled, in_usable_precision(train, log)


def _settle(
    args: argparse.Namespace,
    model_flags: MeanModelFlags,
    log_dir: str,
    *,
    is_resuming: bool,
    log: Log,
) -> dict[str, Any]:
    """The model flags that count, also put into ``args``."""
    path = args_path(log_dir, type(model_flags))
    flags = settle_model_flags(
        model_flags, path, is_resuming=is_resuming, given=args.given_flags, log=log
    )
    for name, value in flags.items():
        setattr(args, name, value)
    return flags


def store_model_flags(train: TrainFlags, flags_class: type[MeanModelFlags], flags: Any) -> None:
    """Writes the args file of a run."""
    save_model_args(args_path(train.log_dir, flags_class), flags_class(**flags))


def new_model(create: Callable[..., Network], flags: dict[str, Any], train: TrainFlags) -> Network:
    """As ``new_network``; a variance starts where it may be."""

    def start(model: Network) -> None:
        kind = flags.get("last_layer_type", "none")
        if kind != "none" and flags.get("objective") != QUANTILE:
            start_at_usual_spread(model.out, kind, flags["out_channels"])

    return new_network(create, flags, train, start)


def frozen_mean_net(
    path: str, args_file: str, sizes: tuple[int, int], compile: str, log: Log
) -> torch.nn.Module:
    """The mean net that the variance task stands on, built from its own stored flags.

    Raises:
        CheckpointError: if a file is missing or does not fit, or the net is for other sizes.
    """
    if not path:
        raise CheckpointError("--mean_model_path is empty; give the checkpoint of the mean net")
    flags = load_model_args(args_file, MeanModelFlags, log)
    if (flags["large_size"], flags["small_size"]) != sizes:
        raise CheckpointError(
            f"the mean net of {args_file} is for {flags['small_size']} → {flags['large_size']}, "
            f"this run for {sizes[1]} → {sizes[0]}"
        )
    model = load_checked(create_mean_model, flags, path, log)
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
    compute: ComputeFlags,
    log: Log,
) -> torch.nn.Module:
    """The frozen mean net; with a cross-fit, the nets of all folds as one (``FoldedMean``).

    Raises:
        ValueError: if the flags contradict each other.
        CheckpointError: if a net is missing, does not fit, or has seen the fold it is for.
    """
    paths = mean_net_paths(flags, cross_fit)
    if cross_fit is None:
        args_file = flags.mean_model_args_path
        return frozen_mean_net(paths[0], args_file, sizes, compute.compile, log)
    from sr_var.cross_fit import FoldedMean

    store, nets = CheckpointStore("", warn=lambda line: None), []
    for fold, path in enumerate(paths):
        args_file = flags.mean_model_args_path.replace(FOLD_FIELD, str(fold))
        found = store.resolve(path)
        cross_fit.require_unseen(fold, path, found.state if found else {})
        nets.append(frozen_mean_net(path, args_file, sizes, compute.compile, log))
    return FoldedMean(nets)


def report_leakage(
    model: FoldedMean, data: TrainData[Any], num_images: int, logger: RunLogger, step: int
) -> None:
    """Measures and logs what the variance net is spared by cross-fitting; all processes join."""
    from sr_var.cross_fit import measure_leakage

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
    args: argparse.Namespace, model_flags: MeanModelFlags, test: TestFlags, log: Log
) -> tuple[torch.nn.Module, tuple[int, int], int]:
    """The network to test, its (large, small) sizes, and the step in its file name.

    Raises:
        CheckpointError: if a file is missing or does not fit.
    """
    flags = _settle(args, model_flags, test.log_dir, is_resuming=True, log=log)
    if not test.model_path:
        raise CheckpointError("--model_path is empty; give the checkpoint to test")
    create: Callable[..., UNetBase] = create_mean_model
    if isinstance(model_flags, VarModelFlags):
        create = create_var_model
    elif isinstance(model_flags, BaselineModelFlags):
        create = create_baseline_model
    network = load_checked(create, flags, test.model_path, log)
    device = dist_util.current_device()
    model = compiled_for(network, test.compile, device, log, is_trained=False)
    return model, (flags["large_size"], flags["small_size"]), step_of(test.model_path)


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
