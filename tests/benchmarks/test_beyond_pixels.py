"""Functionals and components against the law: exact answers have no error, samples have some."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.beyond_pixels import (
    WhatFlags,
    errors,
    format_table,
    functional_row,
    main,
    sample_variance,
)
from benchmarks.block_components import Components, components_row, format_components, of_samples
from oracle.functionals import leading_component, other_variance, trace, variance_of_functional
from oracle.law import OracleLaw, oracle_law
from sr_var.components import blocks_of
from sr_var.functionals import Functional
from tests.oracle.photos import low_res_images
from tests.tiny import words


@pytest.fixture(scope="module")
def law() -> OracleLaw:
    """Of two images of 6² pixels, as 24²."""
    return oracle_law(low_res_images(), 4)


def _exact(law: OracleLaw) -> Components:
    vector, value = leading_component(law)
    both = torch.cat([value, other_variance(law)], dim=1)
    return Components(blocks_of(vector, 4), both, trace(law)[:, 0])


def test_exact_answers_have_no_error_and_samples_have_theirs(law: OracleLaw) -> None:
    row = functional_row(law, "", law.variance)
    assert row["net"]["relative_var_error"] == pytest.approx(0, abs=1e-12)
    # E|χ²₉₉/99 − 1| is 0.113 of a normal law; blocks of one edge have less
    assert row["samples"]["relative_var_error"] == pytest.approx(0.11, abs=0.015)
    aligned = functional_row(law, "block:4", law.variance)
    assert aligned["exact"]["rms_std"] < 1e-3 < aligned["independent"]["rms_std"]
    assert "relative_var_error" not in aligned["net"]
    alone = {**aligned, "functional": "block:4", "net": aligned["exact"]}
    assert "the low-res pixel | 0 | 0 |  |  | std 0 | std " in format_table([alone])


def test_samples_variance_is_unbiased(law: OracleLaw) -> None:
    functional = Functional.parse("block:2")
    exact = variance_of_functional(law, functional)
    found = errors(sample_variance(law, functional, 2000), exact)
    assert abs(found["var_bias"]) < 0.01  # 864 values of 2000 samples
    assert found["relative_var_error"] < 0.04


def test_components_of_many_samples_tend_to_the_exact_ones(law: OracleLaw) -> None:
    row = components_row(law, _exact(law), of_samples(law, 1000))
    assert row["net"]["cosine"] == pytest.approx(1, abs=1e-9)
    assert max(row["net"][name] for name in ("leading", "second", "trace")) < 1e-9
    groups = row["groups"]
    assert sum(group["share"] for group in groups) == pytest.approx(1)
    # cos² is about 1 − (47/1000)·λ₁σ²/(λ₁ − σ²)², 0.994 at a ratio of 10
    assert groups[-1]["samples"]["cosine"] > 0.997
    assert groups[-1]["samples"]["leading"] < 0.05 and groups[-1]["samples"]["trace"] < 0.02
    assert format_components(row).count("\n") == len(groups) + 3


def test_a_tiny_run_writes_its_table_and_its_picture(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photos" / "a.png")
    folders = {"data_dir": tmp_path / "photos", "test_dir": tmp_path / "photos"}
    sizes = {"small_size": 8, "num_test_crops": 4, "width": 8, "num_res_blocks": 1}
    run = {"steps": 2, "batch_size": 2, "threads": 1, "functionals": "block:2 pc:2"}
    assert main(words({**folders, **sizes, **run, "output_dir": tmp_path / "out"})) == 0
    (path,) = (tmp_path / "out").glob("beyond_pixels_*.json")
    rows = json.loads(path.read_text())["rows"]
    assert [row["functional"] for row in rows] == ["", "block:2", "pc:2"]
    assert all(row["steps"] == 2 for row in rows)
    assert "| pixels |" in path.with_suffix(".md").read_text()
    with Image.open(path.with_suffix(".png")) as picture:
        assert picture.size == (2 * 6 * 32, 2 * 4 * 32)


def test_what_is_no_functional_is_refused_before_the_training() -> None:
    with pytest.raises(ValueError, match="--functional 'blok:2'"):
        WhatFlags(functionals="block:2 blok:2")
