"""The law given an observation: against matrices, weighted draws, quadrature and limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from oracle.denoiser import posterior_mean_of_y, posterior_variance_of_y
from oracle.functionals import leading_component, variance_of_functional
from oracle.law import OracleLaw, block_sums, oracle_law
from oracle.posterior import PosteriorLaw, given_noisy, given_observation, given_pixels
from tests.oracle.photos import low_res_images

STDS = pytest.mark.parametrize("std", [0.02, 0.1, 0.2, 1.0])


def _law(num: int = 2, size: int = 5, factor: int = 4) -> OracleLaw:
    return oracle_law(low_res_images(num, size), factor)


def _repeated(law: OracleLaw, num: int) -> OracleLaw:
    return OracleLaw(*(part.repeat(num, 1, 1, 1) for part in vars(law).values()))


def _one_block(row: int, column: int, factor: int, channels: int = 3) -> OracleLaw:
    """One low-res pixel out of the law of an image."""
    law = oracle_law(low_res_images(1, 6), factor)
    high = (
        ...,
        slice(factor * row, factor * (row + 1)),
        slice(factor * column, factor * (column + 1)),
    )
    low = (..., slice(row, row + 1), slice(column, column + 1))
    return OracleLaw(
        law.base[high][:, :channels], law.edge[high], law.sigma[high], law.probability[low]
    )


def _noisy(law: OracleLaw, std: Tensor | float, seed: int) -> tuple[Tensor, Tensor]:
    """A draw of Y, and of z = Y + std·ξ."""
    generator = torch.Generator().manual_seed(seed)
    y = law.sample(generator)
    noise = torch.randn(y.shape, generator=generator, dtype=y.dtype)
    return y, y + torch.as_tensor(std, dtype=y.dtype) * noise


def _mask(law: OracleLaw, share: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(law.sigma.shape, generator=generator) < share).double()


def _by_matrices(law: OracleLaw, z: Tensor, std: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """P(r = 1), mean and covariance of Y given z by conditioning both joint normal laws.

    One low-res pixel. Only pixels that are seen enter, and as (P, with noise 0) may be singular,
    through a pseudoinverse and the density on the range.
    """
    size, channels = law.factor**2, law.base.shape[1]
    sigma = float(law.sigma.flatten()[0])
    projection = torch.eye(size, dtype=torch.float64) - 1.0 / size
    prior = torch.block_diag(*[sigma**2 * projection] * channels)
    stds = std.expand_as(law.base).flatten()
    seen = torch.isfinite(stds)
    edge = law.edge.expand_as(law.base).flatten()
    p = law.probability.flatten()[0]
    both = prior[seen][:, seen] + torch.diag(stds[seen] ** 2)
    inverse = torch.linalg.pinv(both, hermitian=True, rtol=1e-10)
    gain = prior[:, seen] @ inverse
    logs, means = [], []
    for share, sign in ((p, 1), (1 - p, -1)):
        start = law.base.flatten() + sign * edge
        off = z.flatten()[seen] - start[seen]
        logs.append(share.log() - 0.5 * off @ inverse @ off)
        means.append(start + gain @ off)
    weight = torch.softmax(torch.stack(logs), dim=0)
    mean = weight[0] * means[0] + weight[1] * means[1]
    between = weight[0] * weight[1] * torch.outer(means[0] - means[1], means[0] - means[1])
    return weight[0], mean, prior - gain @ prior[seen] + between


def _covariance(law: PosteriorLaw) -> Tensor:
    """Of Y given z by the law's own parts, of one low-res pixel."""
    v = law.sigma.square().flatten()
    within = torch.diag(v) - torch.outer(v, v) / v.sum().clamp(min=1e-300)
    edge, p = law.edge.expand_as(law.base).flatten(), law.probability.flatten()[0]
    blocks = torch.block_diag(*[within] * law.base.shape[1])
    return blocks + 4 * p * (1 - p) * torch.outer(edge, edge)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("kind", ["noise", "mask", "both", "uneven"])
def test_it_is_the_joint_normal_law_conditioned(factor: int, kind: str) -> None:
    for seed, (row, column) in enumerate(itertools.product((0, 2, 4), (1, 3))):
        law = _one_block(row, column, factor)
        hidden = torch.where(_mask(law, 0.5, seed) == 1, 0.0, math.inf).double()
        uneven = 0.02 + 0.3 * _mask(law, 0.5, seed + 50)
        std = {
            "noise": torch.full_like(law.sigma, 0.1),
            "mask": hidden,
            "both": hidden + 0.1,
            "uneven": torch.where(_mask(law, 0.8, seed + 9) == 1, uneven, 0.0).double(),
        }[kind]
        seen = torch.where(torch.isinf(std), 0.0, std)
        _, z = _noisy(law, seen, seed)
        found = given_observation(law, z, std)
        weight, mean, covariance = _by_matrices(law, z, std)
        torch.testing.assert_close(found.probability.flatten()[0], weight, rtol=0, atol=1e-9)
        torch.testing.assert_close(found.mean.flatten(), mean, rtol=0, atol=1e-10)
        torch.testing.assert_close(_covariance(found), covariance, rtol=0, atol=1e-10)
        moved = 2 / law.sigma.square() * law.edge * (found.base - law.base)
        logit = torch.logit(law.probability) + block_sums(moved, factor).sum(dim=1, keepdim=True)
        torch.testing.assert_close(found.log_odds, logit, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            found.variance.flatten(), covariance.diagonal(), rtol=0, atol=1e-10
        )


@STDS
def test_its_mean_and_variance_are_the_exact_denoisers(std: float) -> None:
    """x_t = √ᾱ (Y + sξ) for s² = (1 − ᾱ)/ᾱ."""
    law = _law()
    _, z = _noisy(law, std, 1)
    alpha_bar = torch.tensor(1.0 / (1.0 + std**2), dtype=torch.float64)
    found, x_t = given_noisy(law, z, std), alpha_bar.sqrt() * z
    for ours, theirs in (
        (found.mean, posterior_mean_of_y(law, x_t, alpha_bar)),
        (found.variance, posterior_variance_of_y(law, x_t, alpha_bar)),
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)


def test_draws_of_the_law_weighted_by_their_likelihood_have_its_moments() -> None:
    """No formula of it is used: self-normalised importance sampling, within 5 standard errors."""
    law, std, num = _one_block(2, 3, 2, channels=1), 0.15, 200_000
    _, z = _noisy(law, std, 3)
    found = given_noisy(law, z, std)
    draws = _repeated(law, num).sample(torch.Generator().manual_seed(4))
    weight = torch.softmax(-(z - draws).square().sum(dim=(1, 2, 3)) / (2 * std**2), dim=0)
    assert 1 / weight.square().sum() > 3000  # effective number of draws
    weight = weight[:, None, None, None]
    moments = [found.mean, found.variance]
    moments += [found.third_central_moment, found.fourth_central_moment]
    for power, exact in enumerate(moments, start=1):
        values = draws if power == 1 else (draws - found.mean) ** power
        mean = (weight * values).sum(dim=0)
        error = (weight.square() * (values - mean).square()).sum(dim=0).sqrt()
        assert ((mean - exact[0]).abs() / error).max() < 5
    below = (weight * (draws <= found.base)).sum(dim=0)
    error = (weight.square() * ((draws <= found.base).double() - below).square()).sum(dim=0).sqrt()
    assert ((below - found.cdf(found.base)[0]).abs() / error).max() < 5


def _quadrature(law: OracleLaw, seen: Tensor, std: float) -> tuple[Tensor, Tensor]:
    """Nodes z (n, 1, f, f), with their probabilities, of the law of the pixels that are seen.

    One channel. Gauss–Hermite nodes of either polarity's normal law of z; hidden pixels are 0.
    """
    order = 24
    nodes, weights = np.polynomial.hermite_e.hermegauss(order)
    where = seen.flatten() == 1
    size, sigma = law.factor**2, law.sigma.flatten()[0]
    full = sigma**2 * (torch.eye(size, dtype=torch.float64) - 1.0 / size)
    full = full + std**2 * torch.eye(size, dtype=torch.float64)
    root = torch.linalg.cholesky(full[where][:, where])
    count = int(where.sum())
    grid = torch.tensor(list(itertools.product(nodes, repeat=count)), dtype=torch.float64)
    share = torch.tensor(
        [math.prod(one) for one in itertools.product(weights, repeat=count)], dtype=torch.float64
    )
    share, p = share / share.sum(), law.probability.flatten()[0]
    all_z, all_shares = [], []
    for chance, sign in ((p, 1), (1 - p, -1)):
        z = torch.zeros(len(grid), size, dtype=torch.float64)
        z[:, where] = (law.base + sign * law.edge).flatten()[where] + grid @ root.T
        all_z.append(z)
        all_shares.append(chance * share)
    return torch.cat(all_z).reshape(-1, 1, law.factor, law.factor), torch.cat(all_shares)


@pytest.mark.parametrize("kind", ["noise", "mask"])
def test_over_all_observations_the_laws_mean_and_total_variance_come_back(kind: str) -> None:
    """E[m] = E[Y | x] and E[v] + Var[m] = Var[Y | x], of m = E[Y | x, z], v = Var[Y | x, z]."""
    law = _one_block(2, 3, 2, channels=1)
    if kind == "noise":
        seen, std = torch.ones_like(law.sigma), 0.15
    else:
        seen, std = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]], dtype=torch.float64), 0.0
    z, share = _quadrature(law, seen, std)
    wide = _repeated(law, len(z))
    if kind == "noise":
        found = given_noisy(wide, z, std)
    else:
        found = given_pixels(wide, z, seen.expand(len(z), -1, -1, -1))
    share = share[:, None, None, None]
    mean = (share * found.mean).sum(dim=0)
    torch.testing.assert_close(mean, law.mean[0], rtol=0, atol=1e-6)
    total = (share * (found.variance + (found.mean - mean).square())).sum(dim=0)
    torch.testing.assert_close(total, law.variance[0], rtol=0, atol=1e-6)
    p = (share[:, 0] * found.probability[:, 0]).sum()
    torch.testing.assert_close(p, law.probability.flatten()[0], rtol=0, atol=1e-6)
    assert found.variance.mean() < 0.9 * law.variance.mean()  # z tells something


def test_with_infinite_noise_or_all_pixels_hidden_it_is_the_super_resolution_law() -> None:
    law = _law()
    _, z = _noisy(law, 1.0, 5)
    nothing = torch.full_like(z, math.nan)  # what is hidden does not matter
    for found, atol in (
        (given_noisy(law, z, math.inf), 1e-14),
        (given_noisy(law, z, 1e6), 1e-5),
        (given_pixels(law, nothing, torch.zeros_like(law.sigma)), 1e-14),
    ):
        for name in ("mean", "variance", "third_central_moment", "fourth_central_moment"):
            ours, exact = getattr(found, name), getattr(law, name)
            torch.testing.assert_close(ours, exact, rtol=0, atol=atol)
    start = torch.Generator().manual_seed(6), torch.Generator().manual_seed(6)
    same = given_noisy(law, z, math.inf).sample(start[0]), law.sample(start[1])
    torch.testing.assert_close(*same, rtol=0, atol=1e-14)


def test_without_noise_or_with_all_pixels_seen_it_is_y_itself() -> None:
    law = _law()
    y, _ = _noisy(law, 0.0, 7)
    exact = (given_noisy(law, y, 0.0), given_pixels(law, y, torch.ones_like(law.sigma)))
    for found in exact:
        torch.testing.assert_close(found.mean, y, rtol=0, atol=1e-14)
        assert found.variance.abs().max() < 1e-30
        torch.testing.assert_close(found.sample(), y, rtol=0, atol=1e-14)
        assert (found.cdf(y + 1e-9) == 1).all() and (found.cdf(y - 1e-9) == 0).all()
        torch.testing.assert_close(found.quantile(0.3), y, rtol=0, atol=1e-14)
    y, z = _noisy(law, 1e-5, 8)
    found = given_noisy(law, z, 1e-5)
    assert (found.mean - y).abs().max() < 1e-4
    torch.testing.assert_close(
        found.variance, torch.full_like(y, 1e-10 * (1 - 1 / 16)), rtol=1e-4, atol=0
    )


def test_what_is_seen_stays_and_block_means_hold() -> None:
    law = _law()
    y, _ = _noisy(law, 0.0, 9)
    mask = _mask(law, 0.5, 10)
    found = given_pixels(law, mask * y, mask)
    seen = mask.expand_as(y) == 1
    assert torch.equal(found.variance[seen], torch.zeros_like(y[seen]))
    hidden = block_sums(1 - mask, 4)
    alone = (hidden.repeat_interleave(4, 2).repeat_interleave(4, 3) == 1).expand_as(y) & ~seen
    several = ~alone & ~seen
    assert (found.variance[several] > 1e-4).all()
    assert (found.variance < law.variance + 4 * law.edge**2 + 1e-12).all()
    draw = found.sample(torch.Generator().manual_seed(11))
    torch.testing.assert_close(draw[seen], y[seen], rtol=0, atol=1e-12)
    for image in (found.mean, draw):
        torch.testing.assert_close(block_sums(image, 4), block_sums(y, 4), rtol=0, atol=1e-12)
    one = torch.ones_like(law.sigma)
    one[..., 2, 3] = 0.0  # its block mean says what it is
    found = given_pixels(law, one * y, one)
    torch.testing.assert_close(found.mean, y, rtol=0, atol=1e-12)
    assert found.variance.max() < 1e-25


@pytest.mark.parametrize("kind", ["noise", "mask"])
def test_its_draws_have_its_mean_covariance_and_fourth_moment(kind: str) -> None:
    law, num = _one_block(2, 3, 4), 40_000
    _, z = _noisy(law, 0.2, 12)
    mask = _mask(law, 0.5, 13)
    found = given_noisy(law, z, 0.2) if kind == "noise" else given_pixels(law, z, mask)
    wide = PosteriorLaw(*(part.repeat(num, 1, 1, 1) for part in vars(found).values()))
    draws = wide.sample(torch.Generator().manual_seed(14)).flatten(start_dim=1)
    exact = _covariance(found)
    own = exact.diagonal()
    error = (own / num).sqrt() + 1e-12
    assert ((draws.mean(dim=0) - found.mean.flatten()) / error).abs().max() < 5
    off = torch.cov(draws.T) - exact
    bound = ((torch.outer(own, own) * 2 + exact**2) / num).sqrt() + 1e-12
    assert (off.abs() / bound).max() < 6
    fourth = (draws - found.mean.flatten()).pow(4).mean(dim=0)
    known = own == own.min() if kind == "mask" else torch.zeros_like(own, dtype=torch.bool)
    ratio = (fourth / found.fourth_central_moment.flatten())[~known]
    assert (ratio - 1).abs().max() < 0.1


@pytest.mark.parametrize("kind", ["noise", "mask"])
def test_its_answers_average_to_the_law_and_their_error_is_the_variance(kind: str) -> None:
    law = _law(1, 4)
    wide = _repeated(law, 4000)
    y, z = _noisy(wide, 0.2, 15)
    mask = _mask(wide, 0.5, 16)
    found = given_noisy(wide, z, 0.2) if kind == "noise" else given_pixels(wide, mask * y, mask)
    bias = (found.mean.mean(dim=0) - law.mean[0]) / (law.variance[0] / 4000).sqrt()
    assert bias.abs().max() < 5
    error = (found.mean - y).square()
    assert torch.isclose(error.mean(), found.variance.mean(), rtol=0.02)
    sure = (found.probability - 0.5).abs() > 0.49
    assert sure.double().mean() > 0.05  # polarities that z tells
    for one in (0.7, 1.3):  # any other weight of what is observed is worse
        other = law.mean + one * (found.mean - law.mean)
        assert (other - y).square().mean() > error.mean()


def test_it_is_stable_in_float32_and_where_the_polarity_is_certain() -> None:
    law = _law()
    for std in (1e-4, 0.01, 0.2):
        _, z = _noisy(law, std, 17)
        exact = given_noisy(law, z, std)
        single = OracleLaw(*(part.float() for part in vars(law).values()))
        found = given_noisy(single, z.float(), std)
        assert found.mean.dtype == torch.float32
        assert (found.mean - exact.mean).abs().max() < 1e-4
        assert ((found.variance - exact.variance).abs() / exact.variance).mean() < 1e-3
        assert all(torch.isfinite(part).all() for part in exact.log_weights)
        logs = torch.logsumexp(torch.stack(exact.log_weights), dim=0)
        assert logs.abs().max() < 1e-12
    assert exact.log_odds.abs().max() > 20


@pytest.mark.parametrize("level", [0.05, 0.5, 0.95])
def test_quantiles_are_those_of_its_cdf(level: float) -> None:
    law = _law(1, 4)
    _, z = _noisy(law, 0.2, 18)
    found = given_noisy(law, z, 0.2)
    value = found.quantile(level)
    torch.testing.assert_close(found.cdf(value), torch.full_like(value, level), rtol=0, atol=1e-9)


def test_what_is_no_observation_is_refused() -> None:
    law = _law(1, 3)
    y = law.sample()
    with pytest.raises(ValueError, match="std"):
        given_noisy(law, y, -0.1)
    with pytest.raises(ValueError, match="std"):
        given_noisy(law, y, math.nan)
    with pytest.raises(ValueError, match="mask"):
        given_pixels(law, y, torch.full_like(law.sigma, 0.5))
    with pytest.raises(ValueError, match="fit"):
        given_noisy(law, y[..., :-1], 0.1)
    with pytest.raises(ValueError, match="class"):
        given_noisy(law, y, 0.1).given_class(0, 2)


class _Sums:
    """Weighted sums over windows of the kernel's size, at every place."""

    def __init__(self, kernel: Tensor) -> None:
        self.kernel = kernel

    def __call__(self, image: Tensor, power: int = 1) -> Tensor:
        weights = (self.kernel**power).to(image)[None, None]
        channels = image.shape[1]
        return torch.nn.functional.conv2d(
            image, weights.expand(channels, 1, -1, -1), groups=channels
        )


def test_variances_of_sums_are_those_of_the_covariance_also_given_a_mask() -> None:
    law, weights = _one_block(2, 3, 4), torch.tensor([[0.7, -1.0, 0.2], [0.4, 0.1, 0.9]]).double()
    y, z = _noisy(law, 0.2, 20)
    mask = _mask(law, 0.5, 21)
    for found in (given_noisy(law, z, 0.2), given_pixels(law, y, mask)):
        variance = variance_of_functional(found, _Sums(weights))
        covariance = _covariance(found)[:16, :16]  # of the first channel
        for row, column in itertools.product(range(3), range(2)):
            window = torch.zeros(4, 4, dtype=torch.float64)
            window[row : row + 2, column : column + 3] = weights
            exact = window.flatten() @ covariance @ window.flatten()
            torch.testing.assert_close(variance[0, 0, row, column], exact, rtol=1e-9, atol=1e-15)


def test_what_needs_even_noise_takes_the_law_given_noise_and_refuses_that_given_a_mask() -> None:
    law = _law(1, 4)
    y, z = _noisy(law, 0.2, 22)
    leading_component(given_noisy(law, z, 0.2))
    with pytest.raises(ValueError, match="even"):
        leading_component(given_pixels(law, y, _mask(law, 0.5, 23)))


def _require_same_law(found: PosteriorLaw, expected: PosteriorLaw) -> None:
    for name in ("base", "edge", "probability", "mean", "variance"):
        parts = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(*parts, rtol=0, atol=1e-11, msg=name)


def test_a_law_may_be_given_one_observation_after_another_in_any_order() -> None:
    law = _law()
    y, noisy = _noisy(law, 0.2, 24)
    mask = _mask(law, 0.5, 25)
    uneven = 0.05 + 0.3 * torch.rand(
        law.sigma.shape, generator=torch.Generator().manual_seed(26), dtype=torch.float64
    )
    _, other = _noisy(law, uneven, 27)
    # each pixel's observations together: their mean by precision, and all that is known of it
    precision = 1 / 0.2**2 + 1 / uneven.square()
    mixed = (noisy / 0.2**2 + other / uneven.square()) / precision
    both = given_observation(law, mixed, precision.rsqrt())
    _require_same_law(given_observation(given_noisy(law, noisy, 0.2), other, uneven), both)
    _require_same_law(given_noisy(given_observation(law, other, uneven), noisy, 0.2), both)
    std = 0.2 * (1 - mask)
    shown = given_observation(law, torch.where(mask == 1, y, noisy), std)
    _require_same_law(given_noisy(given_pixels(law, y, mask), noisy, 0.2), shown)
    _require_same_law(given_pixels(given_noisy(law, noisy, 0.2), y, mask), shown)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_exact_denoiser_knows_what_a_mask_shows(dtype: torch.dtype) -> None:
    """One law and several x_t of it, from almost no noise to almost nothing but noise."""
    law = OracleLaw(*(part.to(dtype) for part in vars(_law(1, 4)).values()))
    y, _ = _noisy(law, 0.2, 28)
    mask = _mask(law, 0.5, 29).to(dtype)
    found = given_pixels(law, y, mask)
    alpha_bar = torch.tensor([1 - 1e-5, 0.5, 1e-10], dtype=dtype)
    noise = torch.randn(3, *y.shape[1:], generator=torch.Generator().manual_seed(30), dtype=dtype)
    column = alpha_bar.view(-1, 1, 1, 1)
    x_t = column.sqrt() * y + (1 - column).sqrt() * noise
    mean = posterior_mean_of_y(found, x_t, alpha_bar)
    variance = posterior_variance_of_y(found, x_t, alpha_bar)
    exact = 1e-9 if dtype == torch.float64 else 2e-5
    seen = (mask == 1).expand_as(mean)
    torch.testing.assert_close(mean[seen], y.expand_as(mean)[seen], rtol=0, atol=exact)
    torch.testing.assert_close(block_sums(mean, 4), block_sums(y, 4).expand(3, -1, -1, -1))
    torch.testing.assert_close(mean[0], y[0], rtol=0, atol=0.03)  # noise of 0.003
    assert float(variance[0].max()) < 1.1e-5 and (variance[seen] == 0).all()
    torch.testing.assert_close(mean[2], found.mean[0], rtol=0, atol=5e-4)
    torch.testing.assert_close(variance[2], found.variance[0], rtol=1e-3, atol=1e-5)
    std = 1 - mask
    together = given_observation(law, torch.where(mask == 1, y, x_t[1:2] * 2**0.5), std)
    torch.testing.assert_close(mean[1:2], together.mean, rtol=0, atol=exact)
