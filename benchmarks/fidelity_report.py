"""Tables and the picture of the solvers' fidelity.

Not for measuring: that is `benchmarks.fidelity`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.fidelity import LOG_SNR, UNIFORM, Fidelity, Solver

MAX_VARIANCE_ERROR = 0.03
# of the solvers of one spacing, in their order
_COLOURS = (
    *("tab:gray", "tab:brown", "black", "tab:orange", "tab:purple"),
    *("tab:red", "tab:green", "tab:olive", "tab:blue"),
)
_LOWEST, _HIGHEST = 0.0, 1.6
_BAND = f"variance within {MAX_VARIANCE_ERROR:.0%}"


@dataclass(frozen=True)
class Measured:
    """One cell of the tables."""

    problem: str
    solver: Solver
    num_steps: int
    fidelity: Fidelity


def format_table(
    cells: Sequence[Measured], problem: str, caption: str, show: Callable[[Fidelity], str]
) -> str:
    """A Markdown table, solvers down and steps across."""
    chosen = [cell for cell in cells if cell.problem == problem]
    steps = sorted({cell.num_steps for cell in chosen})
    lines = [f"**{caption}**", ""]
    lines.append("| solver | spacing | " + " | ".join(map(str, steps)) + " |")
    lines.append("|---|---|" + "---|" * len(steps))
    for solver in dict.fromkeys(cell.solver for cell in chosen):
        row = {cell.num_steps: show(cell.fidelity) for cell in chosen if cell.solver == solver}
        values = " | ".join(row.get(count, "") for count in steps)
        lines.append(f"| {solver.name} | {solver.spacing} | {values} |")
    return "\n".join(lines) + "\n"


def fewest_steps(cells: Sequence[Measured], problem: str, solver: Solver) -> int | None:
    """The fewest steps from which on the variance stays within 3 % for all larger numbers.

    One that passes by chance on its way through 1 does not count. None where there is none.
    """
    fewest = None
    chosen = [c for c in cells if c.problem == problem and c.solver == solver]
    for cell in sorted(chosen, key=lambda c: -c.num_steps):
        if abs(variance_error(cell.fidelity)) > MAX_VARIANCE_ERROR:
            return fewest
        fewest = cell.num_steps
    return fewest


def variance_error(fidelity: Fidelity) -> float:
    """Relative error of the variance, without sampling noise where that is known."""
    if fidelity.exact_std_share is None:
        return fidelity.variance_error
    return fidelity.exact_std_share**2 - 1.0


def format_tables(cells: Sequence[Measured]) -> str:
    """All tables as Markdown."""
    problems = list(dict.fromkeys(cell.problem for cell in cells))
    parts = []
    for problem in problems:
        parts.append(
            format_table(cells, problem, f"{problem}: sampled std / true std", _show_std_share)
        )
        parts.append(
            format_table(
                cells,
                problem,
                f"{problem}: error of the variance, %",
                lambda fidelity: f"{100 * variance_error(fidelity):+.1f}",
            )
        )
        parts.append(
            format_table(
                cells,
                problem,
                f"{problem}: rms error of the mean, % of the std",
                lambda fidelity: f"{100 * fidelity.mean_error:.1f}",
            )
        )
    parts.append(_format_choice(cells, problems))
    return "\n".join(parts)


def _show_std_share(fidelity: Fidelity) -> str:
    exact = fidelity.exact_std_share
    return f"{fidelity.std_share if exact is None else exact:.3f}"


def _format_choice(cells: Sequence[Measured], problems: Sequence[str]) -> str:
    lines = [f"**Fewest steps with the variance within {MAX_VARIANCE_ERROR:.0%}**", ""]
    lines.append("| solver | spacing | " + " | ".join(problems) + " |")
    lines.append("|---|---|" + "---|" * len(problems))
    for solver in dict.fromkeys(cell.solver for cell in cells):
        counts = [fewest_steps(cells, problem, solver) for problem in problems]
        shown = " | ".join("none" if count is None else str(count) for count in counts)
        lines.append(f"| {solver.name} | {solver.spacing} | {shown} |")
    return "\n".join(lines) + "\n"


def draw(cells: Sequence[Measured]) -> Figure:
    """Sampled over true std against the number of steps; a row a problem, a column a spacing."""
    problems = list(dict.fromkeys(cell.problem for cell in cells))
    # a figure of its own, not pyplot's: no global state, no display
    figure = Figure(figsize=(10, 3.6 * len(problems)), layout="constrained")
    axes = figure.subplots(len(problems), 2, squeeze=False, sharey=True)
    for row, problem in enumerate(problems):
        for column, spacing in enumerate((UNIFORM, LOG_SNR)):
            axis = axes[row, column]
            _draw_curves(axis, [c for c in cells if c.problem == problem], spacing)
            axis.set_title(f"{problem}, {spacing} spacing", fontsize=10)
            axis.set_xlabel("network evaluations")
        axes[row, 0].set_ylabel("sampled std / true std")
    axes[0, 1].legend(fontsize=7, loc="lower right")
    return figure


def _draw_curves(axis: Axes, cells: Sequence[Measured], spacing: str) -> None:
    solvers = [s for s in dict.fromkeys(c.solver for c in cells) if s.spacing == spacing]
    # ddim with eta 1 has the law of the ancestral sampler with the small variance
    shown = [solver for solver in solvers if solver.eta == 0.0]
    for solver, colour in zip(shown, _COLOURS, strict=False):
        points = sorted(
            (c.num_steps, float(_show_std_share(c.fidelity))) for c in cells if c.solver == solver
        )
        axis.plot(*zip(*points, strict=True), marker="o", ms=3, color=colour, label=solver.name)
    half_width = MAX_VARIANCE_ERROR / 2.0
    axis.axhspan(1.0 - half_width, 1.0 + half_width, color="tab:cyan", alpha=0.2, lw=0, label=_BAND)
    axis.set_xscale("log")
    axis.set_ylim(_LOWEST, _HIGHEST)
    steps = sorted({cell.num_steps for cell in cells})
    axis.set_xticks(steps, [str(count) for count in steps], minor=False)
    axis.minorticks_off()
    axis.grid(alpha=0.3)
