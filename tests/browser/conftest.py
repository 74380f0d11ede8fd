"""A real Chromium without a window, and the pages it looks at."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.verify.numbers.metrics import image_metrics
from sr_var.verify.read.images import ImageData
from sr_var.verify.show.gallery import Gallery
from sr_var.verify.show.page import write_report
from tests.sr_var.verify.show.report_data import (
    HOSTILE,
    UNPRINTABLE,
    NamedMetrics,
    further_sections,
    image_data,
    summary_of,
    write_samples,
)
from tests.tiny import photo

if TYPE_CHECKING:
    from tests.browser.driver import Browser

# the other tests need no browser, nor what talks to one
collect_ignore_glob = [] if importlib.util.find_spec("selenium") else ["test_*.py"]

NUM_SAMPLES = 24
SIDE, LARGE_SIDE = 32, 128


@dataclass(frozen=True)
class Report:
    """A page on disk, and what it was made of."""

    path: Path
    rows: list[NamedMetrics]
    data: list[ImageData]
    samples: list[NDArray[np.uint8]]


def _report(folder: Path, names: list[str], side: int, further: dict[str, Any]) -> Report:
    gallery = Gallery(str(folder / "samples"), NUM_SAMPLES, print)
    rows, all_data, all_samples = [], [], []
    for seed, name in enumerate(names):
        data, samples = image_data(photo(seed, (side, side)), NUM_SAMPLES, seed)
        if not name.startswith("without"):
            write_samples(folder / "samples", name, samples)
        gallery.add(name, data)
        if name == HOSTILE:
            name += UNPRINTABLE
            gallery.images[-1]["name"] = name
        metrics = image_metrics(data)
        if seed == 1:  # as of two equal images
            metrics["mean.psnr"] = float("inf")
        rows.append(NamedMetrics(name, metrics))
        all_data.append(data)
        all_samples.append(samples)
    summary = {**summary_of(rows, NUM_SAMPLES), **further}
    path = write_report(str(folder), summary, rows, gallery)
    return Report(Path(path), rows, all_data, all_samples)


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Small images, every section, a hostile name, an image without sample pictures."""
    names = ["photos/one.png", HOSTILE, "three.png", "without.png", "five.png"]
    return _report(tmp_path_factory.mktemp("full"), names, SIDE, further_sections())


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Large images and no section beyond those that every verification has."""
    names = ["one.png", "two.png"]
    return _report(tmp_path_factory.mktemp("plain"), names, LARGE_SIDE, {})


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    from tests.browser.driver import Browser

    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if paths[0] is None or paths[1] is None:
        pytest.fail("chromium or chromedriver is missing: make test-browser installs them")
    browser = Browser(paths[0], paths[1], tmp_path_factory.mktemp("profile"))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser, in a wide window and light; afterwards its console must be empty."""
    chromium.emulate(width=1200, scheme="light")
    chromium.console()
    yield chromium
    assert chromium.console() == []
