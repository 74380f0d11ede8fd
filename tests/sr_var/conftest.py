"""Fixtures of the sampler's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sr_var.samplers import make_sampler
from tests.tiny import TinyData


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_data: TinyData) -> Path:
    """The output of one run; read only."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    assert make_sampler(tiny_data, folder).run_loop()
    return folder
