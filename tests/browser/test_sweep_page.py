"""The page of a sweep with noisy labels: readable, narrow, and its plots as its tables say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from noisy_label.flags import BIASED, GENERATED, UNIFORM
from noisy_label.report import report_page
from noisy_label.summary import RATIOS, published_accuracy
from tests.browser.driver import Browser
from tests.browser.test_accessibility import CONTRAST

pytestmark = pytest.mark.browser

FLIPS = {UNIFORM: 0.1, BIASED: 0.5, GENERATED: 0.43}


def _value(mean: float) -> dict[str, Any]:
    return {"mean": mean, "interval": [0.98 * mean, 1.02 * mean]}


def _row(noise_type: str, alpha: float) -> dict[str, Any]:
    figures = {"kl": _value(0.1), "cross_entropy_of_drawn": _value(1.0), "floor": _value(0.9)}
    figures |= {"cross_entropy": _value(1.1 - alpha), "accuracy": _value(alpha)}
    return {
        "noise_type": noise_type,
        "alpha": alpha,
        "noise": {
            "ratio_of_correct_labels": _value(alpha),
            "expected_ratio": _value(alpha),
            "largest_is_wrong": _value(0.0),
        },
        "training": figures,
        "test": {**figures, "predicted_accuracy": _value(float(alpha > FLIPS[noise_type]))},
        "published_accuracy": published_accuracy(noise_type, alpha),
    }


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of made-up figures in the shape of ``results.json``."""
    settings = {"num_training_images": 9, "num_test_images": 3, "max_step": 5, "batch_size": 2}
    summary = {
        "settings": {**settings, "lr": 0.1, "seeds": [0, 1]},
        "clean": {name: {"accuracy": _value(0.97)} for name in ("training", "test")},
        "runs": [_row(kind, alpha) for kind in FLIPS for alpha in RATIOS],
        "theorem": {
            kind: {
                "alpha": [0, flip, flip, 1],
                "accuracy": [0, 0, 1, 1],
                "flip": flip,
                "flip_quantiles": [flip, flip],
            }
            for kind, flip in FLIPS.items()
        },
    }
    path = tmp_path_factory.mktemp("sweep") / "report.html"
    path.write_text(report_page(summary).render(), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable(browser: Browser, page: Path, scheme: str) -> None:
    browser.emulate(width=1200, scheme=scheme)
    browser.open(page)
    found, _ = browser.run(CONTRAST)
    assert len(found) > 150
    assert found[0][0] >= 4.5, found[:5]


def test_narrow_window_needs_no_sideways_scrolling(browser: Browser, page: Path) -> None:
    browser.emulate(width=360, scheme="light")
    browser.open(page)
    assert browser.run("return document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_of_the_theorem_have_the_colour_of_their_noise(
    browser: Browser, page: Path, scheme: str
) -> None:
    browser.emulate(width=1200, scheme=scheme)
    browser.open(page)
    strokes = browser.run("""
        const stroke = (query) => getComputedStyle(document.querySelector(query)).stroke;
        return ['series-a', 'series-b', 'series-c'].map((kind) => [
            stroke(`svg.plot .line.reference.${kind}`), stroke(`svg.plot .mark.${kind}`),
            stroke(`.verdict .swatch .line.${kind}`)]);
    """)
    assert all(len(set(kind)) == 1 for kind in strokes)
    assert len({kind[0] for kind in strokes}) == 3


def test_trained_and_published_points_lie_at_their_accuracies(browser: Browser, page: Path) -> None:
    """A trained point is a circle, a published one a cross; higher is more accurate."""
    browser.open(page)
    middles = browser.run("""
        const plot = document.querySelector('svg.plot');
        const boxes = [...plot.querySelectorAll('circle.mark.series-a')];
        return boxes.map((node) => [node.cx.baseVal.value, node.cy.baseVal.value]);
    """)
    assert len(middles) == len(RATIOS)
    # accuracy equals the share of right labels here: all on one line through the origin
    slope = (middles[0][1] - middles[-1][1]) / (middles[0][0] - middles[-1][0])
    assert slope < 0
    for x, y in middles:
        assert y == pytest.approx(middles[0][1] + slope * (x - middles[0][0]), abs=0.3)
    crosses = browser.run("""
        const box = (kind) => document.querySelector('svg.plot .cross.' + kind).getBBox();
        return ['series-a', 'series-b', 'series-c'].map((kind) => box(kind).height);
    """)
    assert crosses[0] < crosses[2] < crosses[1]  # uniform barely falls, biased most
