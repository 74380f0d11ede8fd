"""What the verification says of several mean nets: their own spread beside the predicted one."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from sr_var.verify.numbers.summary import Summary
from utils.report import html
from utils.report.html import Html, Rows, number

_NOTE = "Predicted (aleatoric) and between-net (epistemic) spread, {} mean nets"


class _Line(NamedTuple):
    label: str
    name: str
    wanted: str = ""


_LINES = (
    _Line("mean predicted std, grey levels", "epistemic.mean_std_aleatoric"),
    _Line("mean std between the nets, grey levels", "epistemic.mean_std"),
    _Line("the second over the first", "epistemic.std_ratio"),
    _Line("mean squared z-score, predicted variance", "calibration.nets.z2", "1"),
    _Line("the same, predicted + between-net", "epistemic.z2_total", "1"),
    _Line("coverage of the 95 % interval, predicted", "calibration.nets.coverage_95", "0.95"),
    _Line("the same, predicted + between-net", "epistemic.coverage_95_total", "0.95"),
    _Line("mean variance between nets, grey levels²", "epistemic.variance"),
    _Line("true squared error of their average", "epistemic.squared_error"),
    _Line("true squared error of one net", "epistemic.one_net_squared_error"),
    _Line("share of it that is between nets", "epistemic.between_share"),
    _Line("correlation of that std with |true error|", "epistemic.correlation"),
)


def epistemic_lines(summary: Summary) -> list[str]:
    """The section in text; no line of a single net."""
    if "epistemic" not in summary:
        return []
    rows = [f"  {line.label:<44}{value:>10.4g}" for line, value in _values(summary)]
    return [_title(summary).lower(), *rows]


def epistemic_table(summary: Summary) -> Html | None:
    """The section as a table of the page."""
    if "epistemic" not in summary:
        return None
    rows = []
    for line, value in _values(summary):
        ends = summary["intervals"].get(line.name)
        interval = "" if ends is None else f"{number(ends[0], 3)} to {number(ends[1], 3)}"
        rows.append([line.label, number(value), interval, line.wanted])
    return html.table(_title(summary), ["", "value", "95 % interval", "wanted"], [Rows("", rows)])


def _title(summary: Summary) -> str:
    return _NOTE.format(int(summary["epistemic"]["num_nets"]) or "several")


def _values(summary: Summary) -> Iterator[tuple[_Line, float]]:
    """What is known; the true errors are, where the law is."""
    nets = {"calibration.nets": summary["calibration"]["nets"], "epistemic": summary["epistemic"]}
    for line in _LINES:
        section, _, key = line.name.rpartition(".")
        value = nets[section].get(key)
        if value is not None and not math.isnan(value):
            yield line, value
