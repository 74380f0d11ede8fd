"""Fixtures of the whole suite: one thread, a tiny data set, one finished run of every script."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import tests.environment  # noqa: F401 - first, as torch and started processes read what it settles
from tests.pipeline import Pipeline, run_pipeline
from tests.reliability.extent import FIGURE, is_full
from tests.sr_var.samplers import make_sampler
from tests.tiny import TinyData
from utils.process import stop as stop_util
from utils.process.stop import STOP_SIGNALS

# how long an example may take is a matter of what else the machine does
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    skip = pytest.mark.skip(reason="a long form; RELIABILITY=full, as in .ci/run, runs it too")
    for item in items:
        if item.get_closest_marker("long") and not is_full():
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The figures of ``tests/reliability``, by number, of whichever process ran the test."""
    lines: dict[int, list[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                for name, value in report.user_properties:
                    if name == FIGURE:
                        lines.setdefault(value[0], []).append(value[1])
    if lines:
        terminalreporter.section("reliability")
    for number in sorted(lines):
        terminalreporter.write_line(f"R{number}: {'; '.join(lines[number])}")


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    """Ten photos and their info dicts; read only."""
    folder = tmp_path_factory.mktemp("tiny")
    return TinyData.write(folder / "images", folder / "info")


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory, tiny_data: TinyData) -> Pipeline:
    """What one run of every script left on disk; read only."""
    return run_pipeline(tmp_path_factory.mktemp("pipeline"), tiny_data)


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_data: TinyData) -> Path:
    """The samples of one run of the tiny sampler; read only."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert make_sampler(tiny_data, folder).run_loop()
    return folder


@pytest.fixture(autouse=True)
def signals_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A script that is run within this process takes it for its own and may leave signals off."""
    monkeypatch.setattr(stop_util, "_is_first_last", False)
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
