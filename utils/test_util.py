"""The test loop of every task: the network on each item once, and what to write about it.

A task subclasses `TestLoop` and writes its results in `_post_process`. Which items a rank
gets is the business of `utils.loops.data`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import torch

from utils import dist_util
from utils.debug_util import report_cost
from utils.logger import RunLogger
from utils.loops.data import Pair, batch_length, first_tensor, naming_loader_deaths, to_device
from utils.machine.cost import Stopwatch
from utils.process.progress import Progress
from utils.process.stop import StopFlag, stop_line


class TestLoop(ABC):
    """Runs `model` over `data` without gradients.

    Args:
        model: the network, in the precision that it computes in.
        data: iterable of `(batch, batch_kwargs)`, this rank's share.
        logger: where to report; silent if None.
        num_items: items of this rank, where they are known.

    Attributes:
        stopwatch: seconds of this rank's passes through the network.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    def __init__(
        self,
        *,
        model: torch.nn.Module,
        data: Iterable[Pair],
        logger: RunLogger | None = None,
        num_items: int | None = None,
        is_shown: bool = True,
    ) -> None:
        self.device = dist_util.current_device()
        self.model = model.to(self.device).eval()
        self.data = data
        self.logger = logger or RunLogger(is_quiet=True)
        self.stopwatch = Stopwatch(self.device)
        self._num_items, self._is_shown = num_items, is_shown and dist_util.is_main()

    def forward(self, batch: Any, batch_kwargs: Any) -> Any:
        """The network's output for one batch."""
        return self.model(batch)

    @abstractmethod
    def _post_process(self, batch: Any, output: Any, batch_kwargs: Any) -> None:
        """Write the results of one batch."""

    @naming_loader_deaths()
    def run_loop(self) -> bool:
        """Processes all data.

        Returns:
            True when done; False when a signal asked any process to stop (finished items stay).
        """
        stop, is_stopped = StopFlag(), False
        bar = Progress(self._num_items, "testing", unit="image", is_shown=self._is_shown)
        with stop.listening(), bar, torch.inference_mode():
            for batch, batch_kwargs in self.data:
                batch = to_device(batch, self.device)
                self.stopwatch.start()
                output = self.forward(batch, batch_kwargs)
                self.stopwatch.stop(batch_length(batch))
                self._post_process(batch, output, batch_kwargs)
                bar.update(batch_length(batch))
                if stop.reason:
                    self.logger.info(stop_line(stop.reason))
                    is_stopped = True
                    break
        return not dist_util.any_rank(is_stopped)  # after which nobody waits for anybody

    def dry_run(self) -> None:
        """Run one batch, report what it costs and write no result."""
        first = next(iter(self.data), None)
        if first is None:
            self.logger.info("no item for this process")
            return
        batch, batch_kwargs = first
        started = time.monotonic()
        with torch.inference_mode():
            output = self.forward(to_device(batch, self.device), batch_kwargs)
            first_tensor(output).float().sum().item()  # waits for the device
        seconds = (time.monotonic() - started) / batch_length(batch)
        report_cost(self.model, self.device, self.logger.info)
        total = (
            f"; {self._num_items} images: {seconds * self._num_items:.0f} s"
            if self._num_items
            else ""
        )
        self.logger.info(f"first batch, with warm-up: {seconds:.3f} s an image{total}")
