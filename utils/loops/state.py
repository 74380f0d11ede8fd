"""Everything a training run must find again after a stop, and how it goes to and from a checkpoint.

Weights, optimizer, loss scale, averages, step and place in the data. The loop around it is the
business of `train_util`.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch

from utils import dist_util
from utils.files.atomic import JsonObject
from utils.files.records import Identity, versions
from utils.flags.training import ADAMW, MUON, SGD, TrainFlags
from utils.fp16_util import MixedPrecisionTrainer
from utils.loops.checkpoint import CheckpointSet, CheckpointStore
from utils.loops.data import num_bytes
from utils.loops.portable import weights_digest
from utils.process.errors import CheckpointError, DataError, StorageError
from utils.untrusted.safe_tensors import is_safetensors
from utils.untrusted.state_dict import (
    check_state_dict,
    load_state_dict,
    read_state_dict,
    read_torch_file,
    without_prefix,
)

# what an optimizer's state has where Muon, or SGD, is at work; others have moments
_MOMENTUM = "momentum_buffer"


class WeightAverages:
    """avg ← rate · avg + (1 − rate) · weights after every step, in fp32.

    The rates lie in [0, 1); `masters` are the fp32 parameters to follow.
    """

    def __init__(self, rates: Sequence[float], masters: Sequence[torch.Tensor]) -> None:
        self._averages = {str(rate): [m.detach().clone() for m in masters] for rate in rates}

    @torch.no_grad()
    def update(self, masters: Sequence[torch.Tensor]) -> None:
        """Move every average towards the current weights."""
        for rate, average in self._averages.items():
            torch._foreach_lerp_(average, list(masters), 1.0 - float(rate))

    def items(self) -> Iterator[tuple[str, list[torch.Tensor]]]:
        """(rate as written in file names, averaged parameters)."""
        yield from self._averages.items()

    @torch.no_grad()
    def resume(
        self,
        paths: Mapping[str, str],
        trainer: MixedPrecisionTrainer,
        warn: Callable[[str], None],
    ) -> None:
        """Take the averages from files; one that has no file starts at the current weights."""
        for rate, average in self._averages.items():
            source: Sequence[torch.Tensor] = trainer.masters
            if rate in paths:
                state = load_state_dict(trainer.model, paths[rate], warn)
                source = [state[name] for name in trainer.names]
            else:
                warn(f"warning: the checkpoint has no average with rate {rate}; it starts anew")
            for target, value in zip(average, source, strict=True):
                target.copy_(value)


class TrainState:
    """The state of one run.

    The model is on its device, in the precision that it computes in. A run of another `identity`
    (network, process or list of images) is not gone on with.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        flags: TrainFlags,
        log: Callable[[str], None],
        identity: Identity | None = None,
    ) -> None:
        self.step = 0  # finished updates
        self.position = 0  # items of the data stream that all ranks have used
        self.mp_trainer = MixedPrecisionTrainer(
            model,
            lr=flags.lr,
            weight_decay=flags.weight_decay,
            fp16_scale_growth=flags.fp16_scale_growth,
            optimizer=flags.optimizer,
        )
        self._averages = WeightAverages(flags.ema_rates, self.mp_trainer.masters)
        self._flags, self._log, self._saved_step = flags, log, -1
        # an origin that no other fresh start has
        self._identity, self._origin = identity or Identity(), secrets.token_hex(16)
        self._steps_there: list[int] = []  # in the folder, as this run last saw it

    def finish_step(self, num_items: int) -> None:
        """Count an update that used `num_items` of the stream, over all ranks."""
        self._averages.update(self.mp_trainer.masters)
        self.step += 1
        self.position += num_items

    def save(self, folder: str, extra: JsonObject, kept: Collection[int] = ()) -> None:
        """Write the set of this step, unless that was done; StorageError if it cannot be.

        Sets of the steps `kept` stay, however old they are.
        """
        if self._saved_step == self.step:
            return
        keep = self._flags.keep_last_k
        store = CheckpointStore(folder, keep_last_k=keep, kept=kept, warn=self._log)
        state = {"position": self.position, **self.mp_trainer.scale_state(), **extra}
        manifest = {
            "origin": self._origin,
            **self._identity.record(),
            "flags": vars(self._flags),
            "versions": versions(),
            "state": state,
        }
        parts = self._parts()
        try:
            store.save(self.step, parts, manifest)
        except StorageError as error:
            needed = f"a whole set needs {num_bytes(parts) / 2**20:.1f} MiB"
            raise StorageError(error.errno, f"{error.strerror}; {needed}") from error
        self._saved_step, self._steps_there = self.step, store.steps()
        self._log(f"saved step {self.step} in {folder}")

    def _parts(self) -> dict[str, dict[Any, Any]]:
        trainer = self.mp_trainer
        averages = {
            f"ema_{rate}": trainer.state_dict_of(tensors)
            for rate, tensors in self._averages.items()
        }
        optimizer = trainer.optimizer.state_dict()
        return {"opt": optimizer, "model": trainer.model_state_dict(), **averages}

    def resume(self) -> JsonObject:
        """Load the set that `resume_checkpoint` names, if any, and make all ranks agree.

        A named set gives way to a newer one of the same run in `model_save_dir`: a job that is
        queued again with the same command goes on. A fresh start takes the weights of
        `init_from`, if any.

        Returns:
            the state stored with it; empty for a fresh start.

        Raises:
            CheckpointError: if it names nothing usable, or a run of another network or process, or
                if the checkpoints of another run would be overwritten.
            DataError: if the run was trained on another list of images.
        """
        store = CheckpointStore(self._flags.model_save_dir, warn=self._log)
        found, error = None, None
        self._steps_there = store.steps()
        try:
            found = self._set_to_resume(store)
            if found is not None:
                self._load(found)
            elif self._flags.init_from:
                self._start_from(self._flags.init_from)
        except (CheckpointError, DataError, OSError) as caught:
            error = caught
        dist_util.raise_together(error)
        self._refuse_disagreement()
        trainer = self.mp_trainer
        dist_util.broadcast_tensors([*trainer.masters, *trainer.model.state_dict().values()])
        return dict(found.state) if found else {}

    def refuse_other_writers(self) -> None:
        """Raise CheckpointError if another run has written checkpoints there since `resume`.

        To be called once the folder is held.
        """
        folder = self._flags.model_save_dir
        if CheckpointStore(folder, warn=self._log).steps() != self._steps_there:
            raise CheckpointError(
                f"another run has written to {folder} while this one was starting; start it again "
                "with --resume_checkpoint auto to go on there, or give another --model_save_dir"
            )

    def _refuse_disagreement(self) -> None:
        step = torch.tensor([self.step], device=dist_util.current_device())
        steps = [int(other) for other in dist_util.gather_tensors(step)]
        if len(set(steps)) > 1:
            raise CheckpointError(
                f"the processes found checkpoints of different steps {steps}; put --model_save_dir "
                f"{self._flags.model_save_dir} where every machine sees the same files"
            )

    def _set_to_resume(self, store: CheckpointStore) -> CheckpointSet | None:
        name = self._flags.resume_checkpoint
        found = store.resolve(name)
        if found is None:
            self._refuse_to_overwrite(store)
            return None
        if name != "auto":
            found = self._newest_of_run(store, found)
        path = found.model_path
        if is_safetensors(path):
            raise CheckpointError(
                f"{path} holds weights alone, no state of an optimizer to go on with: go on from "
                f"the .pt file of its training, or start a new run with --init_from {path}"
            )
        if found.is_average:
            raise CheckpointError(
                f"{path} is an average of weights; the optimizer state beside it is that of the "
                "weights themselves: go on from their file, or start a new run with --init_from "
                f"{path}"
            )
        start_anew = f"or start a new run with --init_from {path} and another --model_save_dir"
        self._identity.refuse_other_flags(path, found.manifest, f"give the same, {start_anew}")
        self._identity.refuse_other_data(path, found.manifest, f"give the same, {start_anew}")
        return found

    def _newest_of_run(self, store: CheckpointStore, named: CheckpointSet) -> CheckpointSet:
        """The named set, or the newest one of its run in the folder that the run writes to.

        A folder that holds the checkpoints of another run is refused (CheckpointError).
        """
        if not store.steps():
            return named
        newest = store.newest()
        if newest is None:
            raise CheckpointError(
                f"none of the checkpoints in {store.folder} (up to step {store.steps()[0]}) is "
                "intact; move them away, or give another --model_save_dir"
            )
        is_here = os.path.realpath(os.path.dirname(named.model_path)) == os.path.realpath(
            store.folder
        )
        is_unknown = is_here and "origin" not in named.manifest
        if not is_unknown and newest.manifest.get("origin") not in (None, _origin_of(named)):
            raise CheckpointError(
                f"{store.folder} holds checkpoints of another run (up to step {newest.step}) than "
                f"that of {named.model_path}; give another --model_save_dir, or go on with the run "
                "that is there: --resume_checkpoint auto"
            )
        if newest.step <= named.step:
            return named
        self._log(
            f"notice: {store.folder} is at step {newest.step}, further than {named.model_path}; "
            "going on from there. To go back, move the newer sets away or give another "
            "--model_save_dir"
        )
        return newest

    def _start_from(self, path: str) -> None:
        """Take the weights of a checkpoint, nothing else of it."""
        trainer = self.mp_trainer
        found = CheckpointStore("", warn=self._log).resolve(path)
        assert found is not None  # only an empty name finds nothing
        state = _completed(trainer.model, read_state_dict(found.model_path), self._log)
        checked = check_state_dict(trainer.model, state, found.model_path, self._log)
        trainer.take_masters_from(checked)
        self._averages = WeightAverages(self._flags.ema_rates, trainer.masters)
        self._log(f"a new run from the weights of {found.model_path}")
        differing = self._identity.flags_that_differ(found.manifest)
        listed = ", ".join(map(str, differing))
        if differing and self._flags.strict_flags:
            raise CheckpointError(
                f"--init_from {path} was made with other settings: {listed}; give the same, or "
                "leave out --strict_flags"
            )
        if differing:
            self._log(f"notice: they were made with other settings: {listed}")

    def _load(self, found: CheckpointSet) -> None:
        self._origin = _origin_of(found)
        trainer = self.mp_trainer
        trainer.take_masters_from(load_state_dict(trainer.model, found.model_path, self._log))
        self.step = self._saved_step = found.step
        global_batch = self._flags.batch_size * dist_util.get_world_size()
        self.position = int(found.state.get("position", found.step * global_batch))
        trainer.load_scale_state(dict(found.state))
        self._averages.resume(found.ema_paths, trainer, self._log)
        if found.opt_path is None:
            self._log(f"warning: no optimizer state beside {found.model_path}; it starts anew")
        else:
            self._load_optimizer(found.opt_path)
        self._log(f"resumed from {found.model_path} (step {found.step})")

    def _load_optimizer(self, path: str) -> None:
        optimizer = self.mp_trainer.optimizer
        content = read_torch_file(path)
        try:
            self._refuse_other_optimizer(path, content["state"])
            moments = _checked_moments(content["state"], self.mp_trainer.state_shapes())
            # the options in the file stay behind: those of the command line count
            options = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": moments, "param_groups": options})
        except CheckpointError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise CheckpointError(
                f"{path} is no optimizer state of this model ({error}); "
                "move it away to go on with a fresh one"
            ) from None

    def _refuse_other_optimizer(self, path: str, state: Mapping[int, JsonObject]) -> None:
        """Raise CheckpointError where a state is one of Muon and should not be, and so on.

        Those of Adam and AdamW are alike.
        """
        entries = [entry for entry in state.values() if isinstance(entry, Mapping)]
        made, needed = _maker(entries), _maker(self.mp_trainer.state_shapes())
        if entries and made != needed:
            raise CheckpointError(
                f"{path} was written with --optimizer {made}: give --optimizer {made}, not "
                f"{self._flags.optimizer}, or start a new run with --init_from and another "
                "--model_save_dir"
            )

    def _refuse_to_overwrite(self, store: CheckpointStore) -> None:
        steps = store.steps()
        if steps and self._flags.resume_checkpoint:
            raise CheckpointError(
                f"none of the checkpoints in {store.folder} (up to step {steps[0]}) is intact; "
                "move them away to start afresh"
            )
        if steps and not self._flags.dry_run:
            raise CheckpointError(
                f"{store.folder} already holds checkpoints up to step {steps[0]}; go on with "
                "--resume_checkpoint auto, or give another --model_save_dir"
            )


def _completed(
    model: torch.nn.Module, state: Mapping[str, torch.Tensor], log: Callable[[str], None]
) -> Mapping[str, torch.Tensor]:
    """The state_dict with the model's new parameters for parts that the file's network has not.

    Those that change nothing as they are, by the model's own word (`is_neutral_when_new`); a file
    that has some of them must have them all.
    """
    is_neutral = getattr(model, "is_neutral_when_new", lambda name: False)
    new = {name: value for name, value in model.state_dict().items() if is_neutral(name)}
    known = without_prefix(state, model.state_dict())
    if not new or new.keys() & known.keys():
        return state
    log(f"notice: they have no {', '.join(list(new)[:2])}, …: these {len(new)} begin as new ones")
    return {**known, **new}


def _origin_of(found: CheckpointSet) -> str:
    """The origin; where it is not known, runs that go on from the same file have the same."""
    origin = found.manifest.get("origin")
    return origin if isinstance(origin, str) else f"file {weights_digest(found.model_path)}"


def _as_tensor(value: object) -> torch.Tensor:
    # `float` refuses a list: of a few lists that hold each other many times torch would make a
    # tensor that fills the memory
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value
    return torch.tensor(float(value))  # type: ignore[arg-type]


def _maker(entries: Sequence[Mapping[str, object]]) -> str:
    """Which optimizer leaves such a state: momentum everywhere, somewhere or nowhere."""
    have = [_MOMENTUM in entry for entry in entries]
    return SGD if have and all(have) else MUON if any(have) else ADAMW


def _checked_moments(
    state: Mapping[int, JsonObject], shapes_of: Sequence[Mapping[str, torch.Size]]
) -> dict[int, dict[str, torch.Tensor]]:
    """The optimizer's state by parameter; empty if the run had not made a step.

    Raises:
        KeyError, TypeError, AttributeError: if it is no such state.
        ValueError: if it is one of other parameters, or not finite.
    """
    moments: dict[int, dict[str, torch.Tensor]] = {}
    if not state:
        return moments
    if sorted(state) != list(range(len(shapes_of))):
        raise ValueError(f"it has {len(state)} parameters instead of {len(shapes_of)}")
    for i, shapes in enumerate(shapes_of):
        moments[i] = {name: _as_tensor(state[i][name]) for name in shapes}
        for name, shape in shapes.items():
            if moments[i][name].shape != shape:
                found = tuple(moments[i][name].shape)
                raise ValueError(f"{name} of parameter {i} is {found} instead of {tuple(shape)}")
            if not bool(torch.isfinite(moments[i][name]).all()):
                raise ValueError(f"{name} of parameter {i} is not finite")
    return moments
