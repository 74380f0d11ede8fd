"""Every noise type × share of right labels × seed: runs that finish one by one and are kept.

A run leaves `run.json` last; a sweep that goes on skips what has one, and a run that was stopped
goes on at its checkpoint.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np
import torch

from noisy_label.files import TEST, TRAINING, Split, describe_split
from noisy_label.flags import GENERATED, LabelTrainFlags, SweepFlags
from noisy_label.noise import (
    NET_FIGURES,
    NOISE_FIGURES,
    Array,
    accuracy,
    make_noise,
    net_figures,
    noise_figures,
)
from noisy_label.tasks import Images, load_net, predict, train_net
from utils.files.atomic import atomic_write, write_json_atomic
from utils.files.records import find_record, require_numbers, require_same_settings
from utils.files.storage import make_folder, number_name
from utils.logger import RunLogger
from utils.machine.threads import num_cores
from utils.process.console import prepare_streams
from utils.process.errors import DataError
from utils.process.stop import StopRequested, stop_line
from utils.runs.job import Job
from utils.script_util import defaults
from utils.seeds import stable_seed
from utils.untrusted.arrays import read_npz

CLEAN, RESULT_FILE, SETTINGS_FILE = "clean", "run.json", "settings.json"
# what all runs of a sweep have in common
_TRAINING = (
    "max_step",
    "lr",
    "lr_anneal_steps",
    "weight_decay",
    "optimizer",
    "batch_size",
    "max_shift",
)
SHARED = ("data_dir", *_TRAINING, "input_dim", "hidden_dims")
_SECONDS_BETWEEN_LOOKS = 0.5
_PREDICTIONS = "log_probabilities.npz"
_CLEAN_SECTIONS = {TRAINING: ["accuracy"], TEST: ["accuracy"]}
# section → figure → value
Figures = Mapping[str, Mapping[str, float]]
_NOISY_SECTIONS = {"noise": NOISE_FIGURES, TRAINING: NET_FIGURES, TEST: NET_FIGURES}


@dataclass(frozen=True)
class SweepRun:
    """One training: on clean labels (`alpha` 1), or on noisy ones."""

    noise_type: str
    alpha: float
    seed: int

    def folder(self, output_dir: str) -> str:
        """Where the run keeps its files."""
        name = f"{self.noise_type}_{number_name(self.alpha)}"
        return os.path.join(
            output_dir, CLEAN if self.noise_type == CLEAN else name, f"seed{self.seed}"
        )


def seeds(flags: SweepFlags) -> range:
    """The seeds of the repetitions."""
    return range(flags.seed, flags.seed + flags.num_seeds)


def clean_runs(flags: SweepFlags) -> list[SweepRun]:
    """The nets that generated noise comes from, one a seed; they come first."""
    return [SweepRun(CLEAN, 1.0, seed) for seed in seeds(flags)]


def noisy_runs(flags: SweepFlags) -> list[SweepRun]:
    """All others."""
    return [
        SweepRun(noise_type, alpha, seed)
        for seed in seeds(flags)
        for noise_type in flags.types
        for alpha in flags.shares
    ]


def require_same_sweep(flags: SweepFlags, splits: Mapping[str, Split]) -> None:
    """Remember what the runs of a folder are trained with; refuse (DataError) anything else.

    A record of an earlier version does not tell the images.
    """
    settings = {name: getattr(flags, name) for name in SHARED}
    images = {
        f"{name}_{key}": value
        for name, split in splits.items()
        for key, value in describe_split(*split).items()
    }
    require_same_settings(
        os.path.join(flags.output_dir, SETTINGS_FILE),
        {**settings, **images},
        defaults={**defaults(type(flags)), **images},
    )


def result_of(run: SweepRun, output_dir: str) -> Figures | None:
    """What a finished run found; None if it is not finished, or its file does not say all of it."""
    sections = _CLEAN_SECTIONS if run.noise_type == CLEAN else _NOISY_SECTIONS
    return read_figures(os.path.join(run.folder(output_dir), RESULT_FILE), sections)


def read_figures(path: str, sections: Mapping[str, Sequence[str]]) -> Figures | None:
    """The content of a JSON file; None if it cannot be read or lacks a figure of a section."""

    def figures(content: Figures) -> Figures:
        require_numbers(
            content[section][name] for section, names in sections.items() for name in names
        )
        return content

    return find_record(path, figures)


def do_run(run: SweepRun, flags: SweepFlags) -> bool:
    """Trains, judges, writes `run.json`; False if a signal stopped it (it can go on)."""
    started, folder = time.monotonic(), run.folder(flags.output_dir)
    make_folder(folder)
    logger = RunLogger(folder, is_quiet=True)
    try:
        figures = _train_and_judge(run, flags, folder, logger)
    except StopRequested:
        return False
    finally:
        logger.close()
    record = {**dataclasses.asdict(run), **figures, "seconds": time.monotonic() - started}
    write_json_atomic(os.path.join(folder, RESULT_FILE), record)
    return True


def _train_and_judge(run: SweepRun, flags: SweepFlags, folder: str, logger: RunLogger) -> Figures:
    device, is_clean = torch.device("cpu"), run.noise_type == CLEAN
    images = Images.load(flags.data_dir, TRAINING, device)
    num_classes = images.num_classes
    held_out = Images.load(flags.data_dir, TEST, device, num_classes)
    laws: tuple[Array | None, Array | None] = (None, None)
    if run.noise_type == GENERATED:
        laws = clean_predictions(run.seed, flags.output_dir)
    # another draw for each run: seeds differ in the noise, the weights and the order
    noisy = (
        []
        if is_clean
        else [
            make_noise(run.noise_type, run.alpha, part.labels, law, run.seed, name, num_classes)
            for part, law, name in zip((images, held_out), laws, (TRAINING, TEST), strict=True)
        ]
    )
    seed = stable_seed(run.seed, run.noise_type, f"{run.alpha:g}") % 2**31
    train = LabelTrainFlags(
        **{name: getattr(flags, name) for name in _TRAINING},
        save_interval=flags.max_step,
        log_interval=max(1, flags.max_step // 20),
        model_save_dir=os.path.join(folder, "checkpoints"),
        resume_checkpoint="auto",
        keep_last_k=1,
        seed=run.seed if is_clean else seed,
    )
    labels = images.labels if is_clean else noisy[0].labels
    if not train_net(images.inputs, labels, flags, train, logger, num_classes):
        raise StopRequested
    model, _ = load_net(flags, train, logger, num_classes)
    found = [predict(model, part.inputs) for part in (images, held_out)]
    if is_clean:
        with atomic_write(os.path.join(folder, _PREDICTIONS)) as file:
            np.savez(file, training=found[0], test=found[1])
        return {
            TRAINING: {"accuracy": accuracy(found[0], images.labels)},
            TEST: {"accuracy": accuracy(found[1], held_out.labels)},
        }
    return {
        "noise": noise_figures(noisy[0], images.labels),
        TRAINING: net_figures(found[0], images.labels, noisy[0]),
        TEST: net_figures(found[1], held_out.labels, noisy[1]),
    }


def clean_predictions(seed: int, output_dir: str) -> tuple[Array, Array]:
    """The log-softmax of the clean net on training and test images; DataError without its run."""
    path = os.path.join(SweepRun(CLEAN, 1.0, seed).folder(output_dir), _PREDICTIONS)
    remedy = "delete its folder and run again"
    try:
        stored = read_npz(path, path, (TRAINING, TEST), remedy=remedy)
        return stored[TRAINING], stored[TEST]
    except (OSError, KeyError) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from None


def run_all(runs: Sequence[SweepRun], flags: SweepFlags, job: Job) -> None:
    """Do what is not finished.

    Raises:
        StopRequested: if a signal came to this process or a run (started runs have saved).
        DataError, CheckpointError: of a run; the others are stopped.
    """
    open_runs = [run for run in runs if result_of(run, flags.output_dir) is None]
    job.bar.update(len(runs) - len(open_runs))
    if not open_runs:
        return
    count = num_cores() if flags.num_processes < 1 else flags.num_processes
    # spawned, not forked: torch's threads do not survive a fork
    pool = ProcessPoolExecutor(
        min(count, len(open_runs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin,
    )
    pending = {pool.submit(_do_next, run, flags) for run in open_runs}
    try:
        _collect(pending, job)
    finally:
        for process in multiprocessing.active_children():
            process.terminate()  # a run that is under way saves and ends; no other begins
        # waits: a pool that is let go before its thread has seen the shutdown goes on with all runs
        pool.shutdown(wait=True, cancel_futures=True)


# of a process of the pool: the runs that a signal has stopped
_stopped: list[SweepRun] = []


def _do_next(run: SweepRun, flags: SweepFlags) -> bool:
    """As `do_run`; False too behind a stopped run, for one that this process already has."""
    if _stopped or not do_run(run, flags):
        _stopped.append(run)
        return False
    return True


def _collect(pending: set[Future[bool]], job: Job) -> None:
    while pending:
        done, pending = wait(pending, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
        try:
            is_whole = not [future for future in done if not future.result()]
        except BrokenProcessPool:
            job.check()
            raise
        job.done(len(done))
        if not is_whole:
            raise StopRequested(stop_line("a run was stopped"))


def _begin() -> None:
    prepare_streams()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
