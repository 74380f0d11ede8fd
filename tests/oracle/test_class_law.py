"""The class law: without the class it is the oracle's, and the law of total variance holds."""

from __future__ import annotations

import pytest
import torch

from oracle.law import OracleLaw, oracle_law
from tests.oracle.photos import low_res_images

COUNTS = pytest.mark.parametrize("num_classes", [2, 3, 5])


@pytest.fixture(scope="module")
def law() -> OracleLaw:
    return oracle_law(low_res_images(2, 4), 4)


def _classes(law: OracleLaw, num_classes: int) -> list[OracleLaw]:
    return [law.given_class(label, num_classes) for label in range(num_classes)]


@COUNTS
def test_the_mixture_of_the_classes_is_the_law_without_them(
    law: OracleLaw, num_classes: int
) -> None:
    classes = _classes(law, num_classes)
    for name in ("probability", "mean"):
        mean = torch.stack([getattr(one, name) for one in classes]).mean(dim=0)
        torch.testing.assert_close(mean, getattr(law, name), rtol=0, atol=1e-12)
    value = law.base + 0.05
    cdf = torch.stack([one.cdf(value) for one in classes]).mean(dim=0)
    torch.testing.assert_close(cdf, law.cdf(value), rtol=0, atol=1e-12)


@COUNTS
def test_the_law_of_total_variance_holds_exactly(law: OracleLaw, num_classes: int) -> None:
    classes = _classes(law, num_classes)
    within = torch.stack([one.variance for one in classes]).mean(dim=0)
    between = torch.stack([one.mean for one in classes]).var(dim=0, correction=0)
    gap = law.class_gap(num_classes).expand_as(between)
    torch.testing.assert_close(between, gap, rtol=1e-10, atol=1e-14)  # sums in float64
    torch.testing.assert_close(within + between, law.variance, rtol=1e-10, atol=1e-14)
    assert gap.mean() > 0.05 * law.variance.mean()  # else there would be nothing to see


@COUNTS
def test_every_class_has_a_probability(law: OracleLaw, num_classes: int) -> None:
    for one in _classes(law, num_classes):
        assert ((one.probability > 0) & (one.probability < 1)).all()


def test_draws_of_labels_and_images_have_both_variances() -> None:
    law, num_draws = oracle_law(low_res_images(1, 4), 2), 40_000
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (num_draws,), generator=generator)
    draws = torch.empty(num_draws, *law.base.shape[1:], dtype=law.base.dtype)
    for label, one in enumerate(_classes(law, 2)):
        chosen = labels == label
        num = int(chosen.sum())
        wide = OracleLaw(*(part.repeat(num, 1, 1, 1) for part in vars(one).values()))
        draws[chosen] = wide.sample(generator)
        _assert_variance(draws[chosen], one)
    _assert_variance(draws, law)


def _assert_variance(draws: torch.Tensor, law: OracleLaw) -> None:
    """Within 5 standard errors of the exact one, at every pixel."""
    fourth = law.fourth_central_moment[0]
    error = ((fourth - law.variance[0] ** 2) / len(draws)).sqrt()
    assert ((draws.var(dim=0) - law.variance[0]) / error).abs().max() < 5
    error = (law.variance[0] / len(draws)).sqrt()
    assert ((draws.mean(dim=0) - law.mean[0]) / error).abs().max() < 5


@pytest.mark.parametrize(("label", "num_classes"), [(0, 1), (2, 2), (-1, 2)])
def test_labels_that_there_are_not_are_refused(
    law: OracleLaw, label: int, num_classes: int
) -> None:
    with pytest.raises(ValueError, match="label"):
        law.given_class(label, num_classes)
