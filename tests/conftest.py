"""Fixtures of the whole suite: one thread, a tiny data set, one finished run of every script."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

# before torch is imported; forked and started processes inherit it
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.pipeline import Pipeline, run_pipeline
from tests.sr_var.samplers import make_sampler
from tests.tiny import TinyData
from utils import stop_util
from utils.stop_util import STOP_SIGNALS


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
