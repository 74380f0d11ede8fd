"""The variance between nets against errors that are known, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_var.results.folder import epistemic_files
from sr_var.results.moments import Truth
from sr_var.verify.numbers.epistemic import NUM_NETS, epistemic_means, epistemic_metrics
from sr_var.verify.run import compare, inputs_of
from sr_var.verify.show.epistemic import epistemic_lines, epistemic_table
from tests.sr_var.hand_made import MEAN_STEP, flat, make_results
from utils.logger import RunLogger
from utils.process.errors import DataError
from utils.untrusted.pickles import dump_pickle

Array = NDArray[np.float64]
SHAPE = (40, 40, 3)


@dataclass(frozen=True)
class Known:
    """K nets m_k = μ + b + s·z_k, z_k standard normal, and a real image of the law N(μ, v)."""

    means: Array
    truth: Truth
    high_res: Array
    variance: Array

    @property
    def average(self) -> Array:
        """m̄."""
        return np.asarray(self.means.mean(axis=0))

    @property
    def between(self) -> Array:
        """e."""
        return np.asarray(self.means.var(axis=0, ddof=1))

    def metrics(self, num_nets: int, truth: Truth | None) -> dict[str, float]:
        """Of this image alone."""
        nets = (self.average, self.variance)
        means = epistemic_means(self.between, nets, self.high_res, num_nets, truth)
        full = {name: np.float64(value) for name, value in means.items()}
        return {name: float(value) for name, value in epistemic_metrics(full).items()}


def _known(num_nets: int, bias: float, scale: float, seed: int = 0) -> Known:
    rng = np.random.default_rng(seed)
    mu, spread = rng.uniform(50, 200, SHAPE), scale * rng.uniform(0.5, 1.5, SHAPE)
    variance = rng.uniform(20, 60, SHAPE)
    means = mu + bias + spread * rng.normal(size=(num_nets, *SHAPE))
    high_res = mu + np.sqrt(variance) * rng.normal(size=SHAPE)
    return Known(means, Truth(mu, variance, 0 * mu, 3 * variance**2), high_res, variance)


@pytest.mark.parametrize("num_nets", [2, 5])
def test_errors_of_one_net_are_those_of_the_average_and_what_is_between(num_nets: int) -> None:
    known = _known(num_nets, bias=2.0, scale=3.0)
    found = known.metrics(num_nets, known.truth)
    errors = (known.means - known.truth.mean) ** 2
    # eq. 65 is an identity: to rounding
    assert found["epistemic.one_net_squared_error"] == pytest.approx(errors.mean(), rel=1e-12)
    assert found["epistemic.squared_error"] == pytest.approx(
        ((known.average - known.truth.mean) ** 2).mean(), rel=1e-12
    )
    std, error = np.sqrt(known.between), np.abs(known.average - known.truth.mean)
    correlation = np.corrcoef(std.ravel(), error.ravel())[0, 1]
    assert found["epistemic.correlation"] == pytest.approx(correlation, rel=1e-9)


@pytest.mark.parametrize(("bias", "share"), [(0.0, 1.0), (3.0, 0.5)])
def test_the_share_between_nets_is_their_variance_over_variance_and_squared_bias(
    bias: float, share: float
) -> None:
    """⟨s²⟩ = 9·13/12 for b = 0, made to be 9 for b = 3. e has a relative std of √(2/(K − 1)).

    Over 4800 values with K = 4 that is 0.012 of ⟨e⟩, and as much of the error.
    """
    known = _known(4, bias, scale=3 / np.sqrt(13 / 12))
    found = known.metrics(4, known.truth)
    assert found["epistemic.between_share"] == pytest.approx(share, abs=0.04)
    assert found["epistemic.variance"] == pytest.approx(9.0, rel=0.05)
    # the average's own error is b² + ⟨e⟩/K
    assert found["epistemic.squared_error"] == pytest.approx(bias**2 + 9 / 4, rel=0.06)


def test_the_total_variance_covers_the_average_of_nets_that_differ() -> None:
    """v = 20 … 60 and e/K = 16: with v alone z² is above 1; v + e is more than v + e/K."""
    known = _known(4, 0.0, 8.0)
    found = known.metrics(4, None)
    total = known.variance + known.between
    z2 = (known.high_res - known.average) ** 2 / total
    assert found["epistemic.z2_total"] == pytest.approx(z2.mean())
    assert found["epistemic.coverage_95_total"] == pytest.approx(
        (np.abs(known.high_res - known.average) <= 1.959964 * np.sqrt(total)).mean(), abs=1e-6
    )
    assert found["epistemic.z2_total"] < 1 < (z2 * total / known.variance).mean()
    assert "epistemic.squared_error" not in found


def test_of_an_unknown_number_of_nets_the_error_of_one_is_not_known() -> None:
    known = _known(3, 0.0, 3.0)
    found = known.metrics(0, known.truth)
    assert np.isnan(found["epistemic.one_net_squared_error"])
    assert np.isfinite(found["epistemic.squared_error"])


def test_the_verification_reads_and_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sr_var.verify.numbers.intervals.MIN_UNITS", 3)
    results = make_results(tmp_path)
    names = ("a.png", "folder/b.png", "c.png")
    flags = results.flags(num_samples=4)
    before = compare(*inputs_of(flags, _QUIET), flags, _QUIET, lambda: None).summary
    assert "epistemic" not in before and epistemic_lines(before) == []
    assert epistemic_table(before) is None
    *_, file = epistemic_files(MEAN_STEP)
    for name, value in zip(names, (1.0, 4.0, 9.0), strict=True):
        dump_pickle(flat(value).astype(np.float32), results.root / "nets" / name / file)
    found = compare(*inputs_of(flags, _QUIET), flags, _QUIET, lambda: None).summary
    section = found["epistemic"]
    assert section["variance"] == pytest.approx(14 / 3)
    assert section["mean_std"] == pytest.approx(2)
    aleatoric = (8 + 0 + np.sqrt(500 / 3)) / 3
    assert section["mean_std_aleatoric"] == pytest.approx(aleatoric)
    assert section["std_ratio"] == pytest.approx(2 / aleatoric)
    # real images are 100: (75² / 65 + 73² / 4 + 69² / (500/3 + 9)) / 3
    z2 = (75**2 / 65 + 73**2 / 4 + 69**2 / (500 / 3 + 9)) / 3
    assert section["z2_total"] == pytest.approx(z2)
    assert section["num_nets"] == 0 and NUM_NETS not in found["intervals"]
    assert "epistemic.std_ratio" in found["intervals"]
    lines = epistemic_lines(found)
    assert "several mean nets" in lines[0] and any("4.667" in line for line in lines)
    assert "grey levels²" in str(epistemic_table(found))
    # nothing else has moved
    for name in ("mean", "var", "calibration"):
        assert repr(found[name]) == repr(before[name])  # type: ignore[literal-required]


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    results = make_results(tmp_path)
    *_, file = epistemic_files(MEAN_STEP)
    path = results.root / "nets" / "a.png" / file
    flags = results.flags(num_samples=4)
    for bad, part in ((-1.0, "no variance; run"), (np.nan, "not made of finite numbers")):
        dump_pickle(flat(bad).astype(np.float32), path)
        with pytest.raises(DataError, match=part):
            compare(*inputs_of(flags, _QUIET), flags, _QUIET, lambda: None)


_QUIET = RunLogger(None, is_quiet=True)
