"""What a measurement leaves behind: hardware, versions, command, figures, targets met or not.

`<part>_<date>.json` and a table in Markdown beside it. Not for timing (`benchmarks.harness`).
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Measurement, Row, TimingFlags, format_rows
from utils.files.records import versions
from utils.machine.threads import num_cores

RESULTS_DIR = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True)
class Target:
    """A bound on a figure, and the figure.

    Attributes:
        text: what is measured and against what.
        value: what was found; None where this machine cannot tell.
        bound: what was aimed at.
        is_at_least: whether larger is better.
        unit: behind both numbers.
        note: why there is no figure, or what to know about it.
    """

    text: str
    value: float | None
    bound: float
    is_at_least: bool = True
    unit: str = "×"
    note: str = ""

    @property
    def is_met(self) -> bool | None:
        """None where there is no figure."""
        if self.value is None:
            return None
        return self.value >= self.bound if self.is_at_least else self.value <= self.bound

    @property
    def verdict(self) -> str:
        """Met or not, and by how much of the bound."""
        if self.value is None:
            return "not measured here"
        gap = abs(self.value / self.bound - 1)
        return f"{'met' if self.is_met else '**not met**'}, by {gap:.1%}"


def beside_best(
    text: str, measured: Measurement, own: str, others: Sequence[str], bound: float = 1.05
) -> Target:
    """The goal that a variant takes at most `bound` times as long as the best of others."""
    ratios = {other: measured.ratio(other, own) or 0.0 for other in others}
    best = max(ratios, key=lambda other: ratios[other])
    return Target(text, ratios[best], bound, is_at_least=False, note=f"the best is {best}")


@dataclass(frozen=True)
class Table:
    """Rows of one comparison under a heading."""

    title: str
    rows: Sequence[Row]


def hardware() -> dict[str, Any]:
    """CPU, cores, threads, memory, GPU; and how busy the machine was with other work."""
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "cores": num_cores(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages * page / 2**30, 1),
        "gpu": gpu,
        "load_average_1_5_15": [round(value, 2) for value in os.getloadavg()],
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def own_command(module: str) -> str:
    """The command line, without the folder of the results."""
    words = sys.argv[1:]
    if "--output_dir" in words:
        place = words.index("--output_dir")
        words = words[:place] + words[place + 2 :]
    return " ".join(["python", "-m", module, *words])


def peer_version(package: str) -> str:
    """The version of an optional package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write_rows(
    part: str, folder: Path, flags: Mapping[str, Any], rows: Sequence[Any], text: str
) -> None:
    """Write `rows` as JSON and their table `text` as Markdown, and print the latter."""
    today = datetime.date.today().isoformat()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{part}_{today}.json"
    own = {name: value for name, value in flags.items() if not name.endswith("_dir")}
    record = {"date": today, "flags": own, "hardware": hardware(), "versions": versions()}
    path.write_text(json.dumps({**record, "results": rows}, indent=1) + "\n", encoding="utf-8")
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten: {path} and its .md")


def write_record(
    part: str,
    flags: TimingFlags,
    tables: Sequence[Table],
    targets: Sequence[Target],
    extra: Mapping[str, Any] | None = None,
    *,
    text: str = "",
) -> Path:
    """Write JSON and Markdown, print the latter, and return the path of the JSON.

    `text` is a table of its own kind, in Markdown, in front of the others.
    """
    today = datetime.date.today().isoformat()
    folder = Path(flags.output_dir) if flags.output_dir else RESULTS_DIR
    folder.mkdir(parents=True, exist_ok=True)
    command = own_command(f"benchmarks.{part}")
    record = {
        "part": part,
        "date": today,
        "command": command,
        "flags": {name: value for name, value in vars(flags).items() if name != "output_dir"},
        "hardware": hardware(),
        "versions": {**versions(), "diffusers": peer_version("diffusers")},
        "tables": {table.title: [row.as_record() for row in table.rows] for table in tables},
        "targets": [{**asdict(t), "is_met": t.is_met, "verdict": t.verdict} for t in targets],
        **(extra or {}),
    }
    path = folder / f"{part}_{today}.json"
    path.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    text = format_record(record, tables, targets, text)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(f"\n{text}\nwritten: {path.name} and its .md")
    return path


def format_record(
    record: Mapping[str, Any], tables: Sequence[Table], targets: Sequence[Target], text: str = ""
) -> str:
    """The page of a measurement."""
    machine = record["hardware"]
    load = machine["load_average_1_5_15"][0]
    place = machine["gpu"] or f"{machine['cpu']} ({machine['capability']})"
    lines = [
        f"`{record['command']}`",
        "",
        f"{record['date']}, {place}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{machine['memory_gib']} GiB, load {load} at the end, torch {record['versions']['torch']}",
    ]
    if text:
        lines += ["", text.rstrip()]
    for table in tables:
        lines += ["", f"**{table.title}**", "", format_rows(table.rows).rstrip()]
    if targets:
        lines += ["", format_targets([{**asdict(t), "verdict": t.verdict} for t in targets])]
    return "\n".join(lines).rstrip() + "\n"


def format_targets(targets: Sequence[Mapping[str, Any]], part: str = "") -> str:
    """The targets in Markdown, from their records."""
    lines = ["| figure | measured | target | verdict |", "|---|---|---|---|"]
    for target in targets:
        lines.append(target_line(target, part))
    return "\n".join(lines)


def target_line(target: Mapping[str, Any], part: str = "") -> str:
    """One row of `format_targets`."""
    sign = "≥" if target["is_at_least"] else "≤"
    unit = f" {target['unit']}" if target["unit"] else ""
    value = "–" if target["value"] is None else f"{target['value']:.3g}{unit}"
    verdict = target["verdict"] + (f" ({target['note']})" if target["note"] else "")
    name = f"{part}: {target['text']}" if part else target["text"]
    return f"| {name} | {value} | {sign} {target['bound']:.3g}{unit} | {verdict} |"


def format_all(records: Sequence[Mapping[str, Any]]) -> str:
    """The targets of several measurements in one table."""
    lines = ["| figure | measured | target | verdict |", "|---|---|---|---|"]
    for record in records:
        lines += [target_line(target, record["part"]) for target in record["targets"]]
    return "\n".join(lines)
