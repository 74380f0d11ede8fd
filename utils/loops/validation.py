"""Judging a network while it trains, on items that it does not train on; its best checkpoint.

Every item is judged alone, so that neither batches nor the number of processes change a value.
What is random in that is drawn apart from the training's numbers: weights are the same, bit for
bit, with and without. Which items there are is the business of the task.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import torch

from utils import dist_util
from utils.files.atomic import JsonObject, write_json_atomic
from utils.files.records import find_record, is_number, list_digest
from utils.files.storage import is_file
from utils.loops.checkpoint import model_file_name
from utils.loops.data import Pair
from utils.seeds import stable_seed

BEST_FILE = "best.json"
# metric → value
Metrics = dict[str, float]
Judge = Callable[[Pair], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Validation:
    """What a network is judged on.

    Attributes:
        names: of all items, over all processes.
        pairs: (place in `names`, batch of that one item and its label) of this process; called
            anew for each validation.
        interval: steps between two of them; 0: at the steps of checkpoints alone, which always
            have one.
        record: what checkpoints remember beside the list of names, of JSON types.
    """

    names: Sequence[str]
    pairs: Callable[[], Iterable[tuple[int, Pair]]]
    interval: int = 0
    record: JsonObject = field(default_factory=dict)

    @property
    def state(self) -> JsonObject:
        """What tells it from another one, whose values must not be compared."""
        return list_digest([(name, 0) for name in self.names]) | self.record

    def is_due(self, step: int) -> bool:
        """Whether the interval ends at this step."""
        return bool(self.interval) and step % self.interval == 0


def share_of_rank(num_items: int) -> list[int]:
    """The places of this process: each on one of them; where there are too few, one is repeated."""
    rank = dist_util.get_rank()
    return list(range(num_items)[rank :: dist_util.get_world_size()]) or [rank % num_items]


def drawn(names: Iterable[str], number: int | None = None, share: float = 1.0) -> list[str]:
    """The names that draw a number below `share`, the `number` smallest draws of them at most.

    A draw is a function of the name alone, so that other names change nothing. In order of draws.
    """
    draws = ((stable_seed("validation", name) / 2**63, name) for name in names)
    below = (one for one in draws if one[0] < share)
    chosen = sorted(below) if number is None else heapq.nsmallest(number, below)
    return [name for _, name in chosen]


@contextlib.contextmanager
def apart_from_training(model: torch.nn.Module, device: torch.device) -> Iterator[None]:
    """Evaluate inside: no gradients, no dropout; the random numbers outside stay what they are."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            model.train()


def mean_metrics(validation: Validation, judge: Judge) -> Metrics:
    """The mean over all items of each metric that `judge` gives of one item, in float64.

    All processes call it and get the same.
    """
    table: torch.Tensor | None = None
    keys: list[str] = []
    for place, pair in validation.pairs():
        found = judge(pair)
        if table is None:
            keys = sorted(found)
            table = torch.zeros(len(validation.names), len(keys) + 1, dtype=torch.float64)
        values = [found[key].detach().double().cpu() for key in keys]
        table[place] = torch.stack([torch.ones((), dtype=torch.float64), *values])
    assert table is not None  # see `share_of_rank`
    device = dist_util.current_device()
    total = torch.stack(dist_util.gather_tensors(table.to(device))).cpu().sum(dim=0)
    means = (total[:, 1:] / total[:, :1]).mean(dim=0)
    return dict(zip(keys, means.tolist(), strict=True))


@dataclass(frozen=True)
class Best:
    """The best of the checkpoints that were validated: the smallest value of a metric.

    Attributes:
        step: of the checkpoint.
        metric, value: what it is the best by.
        metrics: all of its values.
        validation: `Validation.state`.
    """

    step: int
    metric: str
    value: float
    metrics: Metrics
    validation: JsonObject

    @classmethod
    def parse(cls, record: object) -> Best | None:
        """Read what a checkpoint's state holds; None where that is nothing, or nothing usable."""
        if not isinstance(record, dict) or record.keys() != {*cls.__dataclass_fields__}:
            return None
        best = cls(**record)
        is_whole = isinstance(best.metrics, dict) and isinstance(best.validation, dict)
        numbers = [best.step, best.value, *(best.metrics.values() if is_whole else [])]
        is_usable = is_whole and type(best.step) is int and isinstance(best.metric, str)
        return best if is_usable and all(map(is_number, numbers)) else None

    def record(self) -> JsonObject:
        """What `parse` reads."""
        return asdict(self)

    def __str__(self) -> str:
        return f"step {self.step}, {self.metric} {self.value:.4g}"


class BestCheckpoint:
    """Which checkpoint of a run is the best so far; `best.json` in their folder says so.

    A checkpoint that is no better than an earlier one does not take its place.
    """

    def __init__(self, folder: str, validation: Validation | None, log: Callable[[str], None]):
        self._folder, self._validation, self._log = folder, validation, log
        self.best: Best | None = None

    def resume(self, state: JsonObject) -> None:
        """Take what the checkpoint to resume remembers, where that still says something."""
        found = Best.parse(state.get("best"))
        if found is None:
            return
        path = os.path.join(self._folder, model_file_name(found.step))
        if not is_file(path):
            self._log(f"notice: the best checkpoint so far ({found}) is not there: {path}")
        elif self._validation and self._validation.state != found.validation:
            self._log(
                f"notice: the best checkpoint so far ({found}) was found on other validation "
                "images, so from here on another one is"
            )
        else:
            self.best = found

    def consider(self, step: int, metric: str, metrics: Metrics) -> bool:
        """Take the checkpoint of this step if its metric is finite and smaller; whether it was."""
        assert self._validation is not None
        value = metrics[metric]
        if not math.isfinite(value) or (self.best and value >= self.best.value):
            return False
        finite = {key: value for key, value in metrics.items() if is_number(value)}
        self.best = Best(step, metric, value, finite, self._validation.state)
        return True

    @property
    def steps(self) -> Collection[int]:
        """The steps whose checkpoints must stay."""
        return [self.best.step] if self.best else []

    def state(self) -> JsonObject:
        """What the checkpoints remember."""
        validation = {"validation": self._validation.state} if self._validation else {}
        return validation | ({"best": self.best.record()} if self.best else {})

    def write(self) -> None:
        """Name it in `best.json`, unless that does; StorageError if it cannot be written."""
        if self.best is None:
            return
        path = os.path.join(self._folder, BEST_FILE)
        content = {"model": model_file_name(self.best.step), **self.best.record()}
        if find_record(path, dict) != content:
            write_json_atomic(path, content)
