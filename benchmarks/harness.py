"""Times variants of the same work side by side: interleaved rounds, medians with quartiles.

Machines are shared and noisy, so every round runs each variant once, in an order of its own, after
a short rest: some libraries' threads stay awake for a while. A ratio is the median over rounds of
the reference's time over the variant's in the *same* round. What a variant computed is compared
with what the reference computed. Not for what is measured (the parts of this folder) nor for files
and hardware (`benchmarks.record`).
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import torch

from utils.process.progress import Progress
from utils.script_util import flag, require_at_least

# seconds of rest before each run
_REST = 0.02
# What takes less is run again, awake and warm, as often as takes so many seconds.
_SHORT, _ENOUGH = 0.1, 0.02


@dataclass(frozen=True)
class TimingFlags:
    """How long to measure, and where to write."""

    rounds: int = flag(5, "rounds; each runs every variant once")
    warmup: int = flag(1, "untimed calls of each variant before the first round")
    time_limit: float = flag(600.0, "seconds after which no further round starts; one always runs")
    threads: int = flag(0, "threads of torch; 0: as many as cores")
    clock: str = flag(
        "wall",
        "wall: seconds as they pass; cpu: seconds of the processor, which waiting for other "
        "processes leaves out; with --threads 1",
        ("wall", "cpu"),
    )
    output_dir: str = flag("", "folder of the JSON and the table; empty: benchmarks/results")

    def __post_init__(self) -> None:
        """Refuse what measures nothing.

        Raises:
            ValueError: names the flag, its value and what is usable.
        """
        require_at_least(self, rounds=1, warmup=1, threads=0)
        if self.clock == "cpu" and self.threads != 1:
            raise ValueError("--clock cpu adds up what all threads take: give --threads 1")
        if not self.time_limit > 0:
            raise ValueError(f"--time_limit {self.time_limit} must be positive, in seconds")


CLOCKS: Mapping[str, Callable[[], float]] = MappingProxyType(
    {"wall": time.perf_counter, "cpu": time.process_time}
)


@dataclass(frozen=True)
class Timed:
    """What a call returns that has read the clock itself, as one in another process has."""

    seconds: float
    value: Any = None


@dataclass(frozen=True)
class Variant:
    """One way to do the work.

    Attributes:
        name: in the tables.
        call: does the work once.
        outcome: makes a tensor of what `call` returned (or of what it changed), to be compared
            with the reference's; after the first warm-up call, untimed. None: not compared.
        against: the variant whose time and result this one is compared with.
        note: what a reader should know.
    """

    name: str
    call: Callable[[], Any]
    outcome: Callable[[Any], torch.Tensor] | None = None
    against: str = ""
    note: str = ""


@dataclass(frozen=True)
class Row:
    """A line of a table; times in seconds.

    Attributes:
        name: of the variant.
        median, lower, upper: median and quartiles of its times.
        against: whose time the ratio is over this one's.
        ratio, ratio_lower, ratio_upper: median and quartiles over rounds of that ratio.
        max_difference: largest difference of the results; None where they were not compared.
        num_rounds: rounds that count.
        note: what a reader should know.
    """

    name: str
    median: float
    lower: float
    upper: float
    against: str
    ratio: float
    ratio_lower: float
    ratio_upper: float
    max_difference: float | None
    num_rounds: int
    note: str = ""

    def as_record(self) -> dict[str, Any]:
        """JSON types."""
        return asdict(self)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile; of one value three times that."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return lower, median, upper


@dataclass(frozen=True)
class Measurement:
    """What the rounds gave.

    Attributes:
        variants: as they were given; the first one is the reference of those that name no other.
        times: seconds of each round by name, as many for every variant.
        results: what was computed, by name, where it is compared.
    """

    variants: Sequence[Variant]
    times: Mapping[str, Sequence[float]]
    results: Mapping[str, torch.Tensor]

    def rows(self, against: str = "") -> list[Row]:
        """The lines of a table; with `against` all of them are compared with that variant."""
        first = self.variants[0].name
        return [self._row(v, against or v.against or first) for v in self.variants]

    def ratio(self, name: str, against: str) -> float | None:
        """Median ratio of two variants; None if one of them was not measured."""
        if not {name, against} <= self.times.keys():
            return None
        return self._ratios(name, against)[1]

    def _ratios(self, name: str, against: str) -> tuple[float, float, float]:
        pairs = zip(self.times[name], self.times[against], strict=True)
        return quartiles([other / max(own, 1e-12) for own, other in pairs])

    def _row(self, variant: Variant, against: str) -> Row:
        difference = None
        if {variant.name, against} <= self.results.keys():
            gap = self.results[variant.name] - self.results[against]
            difference = float(gap.abs().max())
        lower, median, upper = quartiles(self.times[variant.name])
        ratio_lower, ratio, ratio_upper = self._ratios(variant.name, against)
        return Row(
            name=variant.name,
            median=median,
            lower=lower,
            upper=upper,
            against=against,
            ratio=ratio,
            ratio_lower=ratio_lower,
            ratio_upper=ratio_upper,
            max_difference=difference,
            num_rounds=len(self.times[variant.name]),
            note=variant.note,
        )


def measure(
    variants: Sequence[Variant], flags: TimingFlags, device: torch.device | None = None
) -> Measurement:
    """Warm every variant up, then runs the rounds.

    Args:
        variants: at least one.
        flags: how many rounds and how long.
        device: whose queue is waited for before the clock is read.
    """
    wait, clock = _waiting(device), CLOCKS[flags.clock]
    results: dict[str, torch.Tensor] = {}
    times: dict[str, list[float]] = {variant.name: [] for variant in variants}
    with Progress((flags.warmup + flags.rounds) * len(variants), "measuring", unit="run") as bar:
        for variant in variants:
            for number in range(flags.warmup):
                returned = variant.call()
                if number == 0 and variant.outcome is not None:
                    value = returned.value if isinstance(returned, Timed) else returned
                    results[variant.name] = variant.outcome(value).detach().float().cpu().clone()
                del returned
                bar.update(note=f"warm-up, {variant.name}")
        started = time.monotonic()
        for number in range(flags.rounds):
            for variant in _in_turn(variants, number):
                time.sleep(_REST)
                seconds, elapsed = _seconds(variant.call, wait, clock)
                if elapsed < _SHORT:
                    num_calls = max(1, round(_ENOUGH / max(elapsed, 1e-6)))
                    seconds, _ = _seconds(variant.call, wait, clock, num_calls)
                times[variant.name].append(seconds)
                bar.update(note=variant.name)
            if time.monotonic() - started > flags.time_limit:
                break
    return Measurement(variants, times, results)


def row_named(rows: Sequence[Row], name: str) -> Row:
    """The line of a variant.

    Raises:
        KeyError: if there is none.
    """
    for row in rows:
        if row.name == name:
            return row
    raise KeyError(name)


def format_rows(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    lines = [
        "| variant | median, s | quartiles, s | ratio | quartiles | max difference | note |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        reference = "" if row.against == rows[0].name else f" (against {row.against})"
        difference = "–" if row.max_difference is None else f"{row.max_difference:.1e}"
        lines.append(
            f"| {row.name} | {row.median:.4g} | {row.lower:.4g}–{row.upper:.4g} "
            f"| {row.ratio:.3g}{reference} | {row.ratio_lower:.3g}–{row.ratio_upper:.3g} "
            f"| {difference} | {row.note} |"
        )
    return "\n".join(lines) + "\n"


def pick_device(name: str) -> torch.device:
    """The device of a `--device` flag: auto, cpu or cuda.

    Raises:
        ValueError: for cuda where there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no GPU here; give --device cpu")
    return torch.device(name)


def _in_turn(variants: Sequence[Variant], number: int) -> list[Variant]:
    """The variants in another order each round, so that nobody always runs behind the same one."""
    return random.Random(number).sample(variants, len(variants))


def _seconds(
    call: Callable[[], Any],
    wait: Callable[[], None],
    clock: Callable[[], float],
    num_calls: int = 1,
) -> tuple[float, float]:
    """Seconds of a call, the mean of several: as it tells itself if `Timed`, and by the clock."""
    wait()
    told, started = [], clock()
    for _ in range(num_calls):
        returned = call()
        if isinstance(returned, Timed):
            told.append(returned.seconds)
    wait()
    elapsed = (clock() - started) / num_calls
    return sum(told) / num_calls if told else elapsed, elapsed


def _waiting(device: torch.device | None) -> Callable[[], None]:
    if device is not None and device.type == "cuda":
        return torch.cuda.synchronize
    return lambda: None
