"""The training loop of every task: minimise E[L(f(X), Y)] over the weights of f.

A task subclasses `TrainLoop`, says in `compute_loss` which L it wants (the default is the
squared error, whose minimiser is the conditional mean) and reports in `_post_process`. Data
order, precision and what a checkpoint remembers are the business of `utils.loops.data`,
`fp16_util` and `utils.loops.state`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from utils import dist_util
from utils.debug_util import report_cost
from utils.files.atomic import JsonObject, is_remote
from utils.files.lock import Lock, lock_notice, sole_writer
from utils.files.records import Identity
from utils.files.storage import make_folder
from utils.flags.training import TrainFlags
from utils.fp16_util import MIN_LG_LOSS_SCALE
from utils.logger import RunLogger
from utils.loops.checkpoint import CheckpointStore, model_file_name
from utils.loops.data import (
    Pair,
    ResumableData,
    batch_length,
    batch_slice,
    endless,
    first_tensor,
    naming_loader_deaths,
    to_device,
)
from utils.loops.networks import compiled_for, settle_kernels
from utils.loops.state import TrainState
from utils.loops.validation import (
    BestCheckpoint,
    Metrics,
    Validation,
    apart_from_training,
    mean_metrics,
)
from utils.process.errors import CheckpointError
from utils.process.progress import Progress
from utils.process.stop import StopFlag, go_on_with, stop_line
from utils.seeds import stable_seed

_LOG_INTERVALS_BETWEEN_IMAGES = 100


class TrainLoop(ABC):
    """Trains `model` on `data`; stopped and resumed, it ends with the same weights.

    Args:
        model: the network, in the precision that it computes in.
        data: what can resume exactly, or any iterable of pairs, which a resumed run goes through
            again up to where it stopped.
        logger: where to report; silent if None.
        identity: what the checkpoints say of themselves, and what a run to resume must be.
        validation: what the network is judged on meanwhile (`judge`); nothing if None.
        flags: fields of `TrainFlags`.

    Raises:
        TypeError: for an unknown flag.
        ValueError: for a flag value that no run could use.
        CheckpointError, DataError: if `resume_checkpoint` names nothing usable or another run,
            or if the checkpoints of another run would be overwritten.
    """

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        data: ResumableData | Iterable[Pair],
        logger: RunLogger | None = None,
        identity: Identity | None = None,
        validation: Validation | None = None,
        **flags: Any,
    ) -> None:
        self.flags = TrainFlags(**flags)
        self.logger = logger or RunLogger(is_quiet=True)
        self.device = dist_util.current_device()
        self.model = model.to(self.device).train()
        self.data = data
        identity = identity or Identity(type(self.model).__name__)
        if dist_util.is_main() and isinstance(data, ResumableData):
            identity = dataclasses.replace(identity, data=data.listing())
        self.state = TrainState(self.model, self.flags, self.logger.info, identity)
        self.mp_trainer = self.state.mp_trainer
        stored = self.state.resume()
        self.load_extra_state(stored)
        self._validation, self._validation_seconds = validation, 0.0
        self._lock: Lock | None = None
        self._best = BestCheckpoint(self.flags.model_save_dir, validation, self.logger.info)
        self._best.resume(stored)
        if self.flags.resume_checkpoint:
            self.logger.forget_after(self.step)
        self._say_start(stored)
        self._kernels = self._settle_kernels(stored)
        self.wrapped_model: torch.nn.Module = self._wrap()
        if self.flags.debug_mode:
            report_cost(self.model, self.device, self.logger.info)

    # ---- what a task says

    def compute_loss(self, micro_input: Any, micro_label: Any) -> tuple[torch.Tensor, Any]:
        """The empirical risk of a slice of the batch: mean squared error.

        Its minimiser is the conditional mean E[Y|X] (docs/theory.md, eq. 2). Another loss, another
        functional of the conditional law; nothing else in the loop changes.

        Returns:
            the mean loss over the slice (a scalar), and the model's output for reporting.
        """
        output = self.wrapped_model(micro_input)
        return torch.nn.functional.mse_loss(output.float(), micro_label.float()), output

    # by which of the metrics of `judge` a checkpoint is the best: the smallest
    criterion = "loss"

    def judge(self, batch: Any, label: Any) -> Mapping[str, torch.Tensor]:
        """Metrics, scalars, of one item that is not trained on; in evaluation mode, no gradients.

        Among them is the `criterion`.
        """
        return {"loss": self.compute_loss(batch, label)[0]}

    @abstractmethod
    def _post_process(self, micro_input: Any, micro_label: Any, micro_output: Any, i: int) -> None:
        """Report on the `i`-th slice of a step, after its backward pass and without gradients.

        The tensors are the loop's own: changing them changes neither the weights nor the data.
        """

    @property
    def step(self) -> int:
        """Finished updates."""
        return self.state.step

    @property
    def is_image_step(self) -> bool:
        """Whether pictures are due: every 100 log intervals, starting with the first step."""
        return self.step % (self.flags.log_interval * _LOG_INTERVALS_BETWEEN_IMAGES) == 0

    # ---- the loop

    @naming_loader_deaths()
    def run_loop(self, on_start: Callable[[], None] = lambda: None) -> bool:
        """Train until `max_step`, or until lr has fallen to 0 where that has no limit.

        Args:
            on_start: writes on rank 0 what the checkpoints need beside them, once the folder is
                held: a run that is refused does not overwrite what the other one wrote.

        Returns:
            True when done; False when a signal or `run_time` stopped it (a checkpoint is saved).
        """
        if self.flags.dry_run:
            return self._dry_run()
        stop = StopFlag(self.flags.run_time)
        with self._writing(on_start), stop.listening(), self._progress() as progress:
            batches = self._batches()
            while self.step < self.flags.last_step:
                batch, label = next(batches)
                self.run_step(batch, label)
                progress.update()
                if self.step % self.flags.log_interval == 0:
                    self._log()
                is_saved = self.step % self.flags.save_interval == 0
                self._validate(is_saved=is_saved or self.step == self.flags.last_step)
                if is_saved:
                    self.save()
                if dist_util.any_rank(bool(stop.reason)):
                    self.save()
                    reason = stop.reason or "on another process"
                    self.logger.info(stop_line(reason, self._remedy, f"at step {self.step}"))
                    return False
            self.save()
        if self._best.best is not None:
            self.logger.info(f"best checkpoint: {self._best.best}")
        return True

    def run_step(self, batch: Any, label: Any) -> None:
        """One update of the weights from one batch of this rank."""
        batch = to_device(batch, self.device, is_copy=True)
        label = to_device(label, self.device, is_copy=True)
        self.mp_trainer.zero_grad()
        loss = self._forward_backward(batch, label)
        statistics = self.mp_trainer.step(self.flags.lr_at(self.step))
        self.logger.add("loss", loss)
        for key, value in statistics.items():
            self.logger.add(key, value)
        self.state.finish_step(batch_length(batch) * dist_util.get_world_size())

    def _forward_backward(self, batch: Any, label: Any) -> torch.Tensor:
        """Accumulate the gradient of the batch's mean loss slice by slice; return the loss."""
        size = batch_length(batch)
        micro_size = self.flags.microbatch if self.flags.microbatch > 0 else size
        total = torch.zeros((), device=self.device)
        for i, start in enumerate(range(0, size, micro_size)):
            stop = min(start + micro_size, size)
            micro_input, micro_label = (batch_slice(part, start, stop) for part in (batch, label))
            # before each slice, so that reporting on the one before may draw numbers, too
            torch.manual_seed(stable_seed(self.flags.seed, self.step, dist_util.get_rank(), i))
            # ranks exchange gradients once a step: forward and backward of the others stay local
            with self._local_gradients(is_last=stop == size):
                loss, output = self.compute_loss(micro_input, micro_label)
                loss = loss * ((stop - start) / size)
                self.mp_trainer.backward(loss)
            total += loss.detach()
            with torch.no_grad():
                self._post_process(micro_input, micro_label, output, i)
        return total

    def _local_gradients(self, *, is_last: bool) -> contextlib.AbstractContextManager[Any]:
        if isinstance(self.wrapped_model, DistributedDataParallel) and not is_last:
            return self.wrapped_model.no_sync()
        return contextlib.nullcontext()

    def _settle_kernels(self, stored: JsonObject) -> str:
        """Which convolutions the run has: those of the flag, else those that it began with."""
        choice, begun = self.flags.kernels, stored.get("kernels")
        if choice == "auto" and begun in ("direct", "winograd"):
            choice = begun
        return settle_kernels(self.model, choice, self.device, self.logger.info, is_trained=True)

    def _wrap(self) -> torch.nn.Module:
        network = compiled_for(
            self.model, self.flags.compile, self.device, self.logger.info, is_trained=True
        )
        if not dist_util.is_distributed():
            return network
        device_ids = [self.device] if self.device.type == "cuda" else None
        # gradients lie in the buckets that are exchanged: no copy, and half the memory for them
        return DistributedDataParallel(network, device_ids=device_ids, gradient_as_bucket_view=True)

    def _batches(self) -> Iterator[Pair]:
        if isinstance(self.data, ResumableData):
            return self.data.batches(self.state.position)
        return itertools.islice(endless(self.data), self.step, None)

    # ---- reporting

    @property
    def _global_batch(self) -> int:
        """Items of one step, over all processes."""
        return self.flags.batch_size * dist_util.get_world_size()

    @property
    def _remedy(self) -> str:
        """What to do after a stop."""
        if not self.flags.model_save_dir:
            return "nothing was saved, for --model_save_dir is empty: another run starts afresh"
        return go_on_with(f"--resume_checkpoint auto --model_save_dir {self.flags.model_save_dir}")

    def _validate(self, *, is_saved: bool) -> None:
        """Judge the network where that is due; one that is saved may be the best so far."""
        if self._validation is None or not (is_saved or self._validation.is_due(self.step)):
            return
        metrics, seconds = self._judged(self._validation)
        self._validation_seconds += seconds
        self._log_time += seconds  # which is no training
        if is_saved and self.flags.model_save_dir:
            self._best.consider(self.step, self.criterion, metrics)
        self.logger.scalars({f"val/{key}": value for key, value in metrics.items()}, self.step)
        share = self._validation_seconds / max(time.monotonic() - self._start_time, 1e-9)
        text = " | ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        best = f" | best saved: {self._best.best}" if self._best.best else ""
        self.logger.info(
            f"validation at step {self.step} | {text}{best} | {seconds:.2f} s, "
            f"{100 * share:.1f} % of the time so far"
        )

    def _judged(self, validation: Validation) -> tuple[Metrics, float]:
        """The mean metrics, and the seconds they took."""
        started = time.monotonic()
        # compiled for other sizes, and with processes that would wait for each other
        trained, self.wrapped_model = self.wrapped_model, self.model
        try:
            with apart_from_training(self.model, self.device):
                metrics = mean_metrics(validation, lambda pair: self.judge(*pair))
        finally:
            self.wrapped_model = trained
        return metrics, time.monotonic() - started

    def _say_start(self, stored: JsonObject) -> None:
        """Say what of the flags the network cannot have, and how large the global batch is.

        A checkpoint (its state is `stored`) of an earlier version tells its batch by its position.
        """
        for line in getattr(self.model, "notices", list)():
            self.logger.info(line)
        batch, size = self._global_batch, self.flags.batch_size
        world_size = dist_util.get_world_size()
        if world_size > 1:
            self.logger.info(f"global batch {batch} = {size} x {world_size} processes")
        before, position = stored.get("global_batch"), stored.get("position")
        if before is None and isinstance(position, int) and self.step and not position % self.step:
            before = position // self.step
        if isinstance(before, int) and before != batch:
            self.logger.info(
                f"notice: the global batch is {batch} (--batch_size {size}, which is per process, "
                f"x {world_size}); in the run that is resumed it was {before}: from here on a step "
                "takes another number of items"
            )

    def _progress(self) -> Progress:
        total = None if self.flags.is_endless else self.flags.last_step
        is_shown = dist_util.is_main()
        self._log_time, self._log_position = time.monotonic(), self.state.position
        self._start_time = self._log_time
        return Progress(
            total, "training", unit="step", done=self.step, is_shown=is_shown, has_lines=False
        )

    def _log(self) -> None:
        """Write the means since the last call: one transfer from the device for all of them."""
        self.logger.add("param_norm", self.mp_trainer.param_norm())
        self.logger.add("skipped_in_row", self.mp_trainer.num_skipped_in_row)
        self.logger.add("skipped_steps", self.mp_trainer.num_skipped)
        keys, means = self.logger.take_means()
        values = dict(zip(keys, dist_util.mean_over_ranks(means).tolist(), strict=True))
        now = time.monotonic()
        rate = (self.state.position - self._log_position) / max(now - self._log_time, 1e-9)
        self._log_time, self._log_position = now, self.state.position
        values |= {"samples_per_second": rate, "lr": self.flags.lr_at(self.step - 1)}
        self.logger.scalars(values, self.step)
        shown = ["loss", "grad_norm", "param_norm", "samples_per_second"]
        if self.mp_trainer.has_loss_scale:
            shown.append("lg_loss_scale")
        text = " | ".join(f"{key} {values[key]:.4g}" for key in shown)
        self.logger.info(f"step {self.step} | {text}{self._time_left(rate)}")
        self._refuse_divergence(values["skipped_in_row"])

    def _time_left(self, samples_per_second: float) -> str:
        if self.flags.is_endless:
            return ""
        steps = self.flags.last_step - self.step
        seconds = steps * self._global_batch / samples_per_second
        return f" | {seconds / 60:.1f} min left"

    def _refuse_divergence(self, skipped_in_row: float) -> None:
        """Raise CheckpointError where gradients stay useless; it names the last checkpoint."""
        trainer, problem = self.mp_trainer, ""
        lg_loss_scale = float(trainer.lg_loss_scale)
        if trainer.has_loss_scale and lg_loss_scale <= MIN_LG_LOSS_SCALE:
            problem = (
                f"the loss scale fell to 2^{lg_loss_scale:.0f} and fp16 still overflows; lower "
                "--lr or use --use_bf16 True"
            )
        if not trainer.has_loss_scale and skipped_in_row >= self.flags.max_bad_steps:
            problem = (
                f"{skipped_in_row:.0f} gradients in a row were not finite; lower --lr or look at "
                "the data"
            )
        if not problem:
            return
        folder, last = self.flags.model_save_dir, "No checkpoint was saved"
        there = CheckpointStore(folder, warn=lambda line: None).steps() if folder else []
        saved = [step for step in there if step <= self.step]
        if saved:
            last = f"The last checkpoint is {os.path.join(folder, model_file_name(saved[0]))}"
        raise CheckpointError(f"step {self.step}: {problem}. {last}")

    def _dry_run(self) -> bool:
        batch, label = next(self._batches())
        started = time.monotonic()
        self.run_step(batch, label)
        first_tensor(self.mp_trainer.masters).sum().item()  # waits for the device
        seconds = time.monotonic() - started
        hours = seconds * (self.flags.last_step - self.step) / 3600
        report_cost(self.model, self.device, self.logger.info)
        self.logger.info(f"one step (the first, with warm-up): {seconds:.3f} s")
        self.logger.info(f"whole run of {self.flags.last_step} steps: about {hours:.2f} h")
        if self._validation is not None:
            _, seconds = self._judged(self._validation)
            every = self._validation.interval or self.flags.save_interval
            self.logger.info(f"one validation, every {every} steps: {seconds:.2f} s")
        return True

    # ---- files

    @contextlib.contextmanager
    def _writing(self, on_start: Callable[[], None]) -> Iterator[None]:
        """Rank 0 holds the folder, so that a second run cannot write between this one's files.

        A remote folder cannot be held.
        """
        with contextlib.ExitStack() as stack:
            error = None
            folder = self.flags.model_save_dir
            if is_remote(folder):
                self.logger.info(f"note: nothing keeps a second run from writing to {folder}")
            if dist_util.is_main():
                try:
                    if folder and not is_remote(folder):
                        make_folder(folder, "--model_save_dir")
                        if notice := lock_notice(folder):
                            self.logger.remind(notice)
                        self._lock = stack.enter_context(sole_writer(folder))
                        self.state.refuse_other_writers()
                    on_start()
                except (OSError, CheckpointError) as caught:
                    error = caught
            dist_util.raise_together(error)
            yield

    def save(self) -> None:
        """Write the checkpoint set of this step, unless that was done already."""
        if not self.flags.model_save_dir:
            return
        error = None
        if dist_util.is_main():
            try:
                self._require_lock()
                state = {"global_batch": self._global_batch, **self._best.state()}
                state |= {"kernels": self._kernels} if self._kernels else {}
                state |= self.extra_state()
                self.state.save(self.flags.model_save_dir, state, self._best.steps)
                self._best.write()
            except (OSError, CheckpointError) as caught:
                error = caught
        dist_util.raise_together(error)

    def _require_lock(self) -> None:
        """Refuse to write where another run does: this one stood still for too long."""
        if self._lock is not None and not self._lock.is_held():
            raise CheckpointError(
                f"{self.flags.model_save_dir} was taken over by another run while this one did not "
                f"answer; step {self.step} is not saved. Go on with --resume_checkpoint auto once "
                "that one has ended"
            )

    def extra_state(self) -> JsonObject:
        """What a task wants to find again after a resume (JSON types); see `load_extra_state`."""
        return {}

    def load_extra_state(self, state: JsonObject) -> None:  # noqa: B027 - optional
        """Take back what `extra_state` gave."""
