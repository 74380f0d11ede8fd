"""Marks the tests of this folder and keeps their figures for the end of the run."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reliability.extent import FIGURE


@pytest.fixture
def figure(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Keeps a line for the end of the run, under the number in the name of the test's module."""
    match = re.match(r"test_r(\d+)_", request.path.name)
    assert match, f"{request.path.name} carries no number"
    number, kept = int(match.group(1)), request.node.user_properties
    return lambda line: kept.append((FIGURE, [number, line]))


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """A test that fails would leave trainings without an end, which pytest would wait for."""
    yield
    for process in multiprocessing.active_children():
        process.kill()
        process.join()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.reliability)
