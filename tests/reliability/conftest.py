"""Prints the figures of the tests of this folder, by number, at the end of the run."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

_FIGURES = pytest.StashKey[dict[int, list[str]]]()


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a line for the end of the run, under the number in the name of the test's module."""
    match = re.match(r"test_r(\d+)_", request.path.name)
    assert match, f"{request.path.name} carries no number"
    lines = request.config.stash.setdefault(_FIGURES, {})
    return lines.setdefault(int(match.group(1)), []).append


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(_FIGURES, {})
    if lines:
        terminalreporter.section("reliability")
    for number in sorted(lines):
        terminalreporter.write_line(f"R{number}: {'; '.join(lines[number])}")
