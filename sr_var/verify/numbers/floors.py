"""What n samples of an exact law show: noise floors, and both routes against a law that is known.

The mean absolute errors of k₂ and √k₂ need a law, not just a variance: k₂/σ² is taken for a gamma
variable of shape a = σ⁴/Var(k₂), i.e. χ² with 2a degrees of freedom over 2a. That is its exact law
for normal samples (2a = n − 1), and matches its first two moments for any (Satterthwaite, "An
approximate distribution of estimates of variance components", 1946). docs/theory.md, eq. 12 to 15.
Where the conditional law is known, the two routes need not be judged against each other: eq. 42 to
44.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple, TypedDict

import numpy as np
from scipy.special import gammainc, gammaln

from sr_var.results.moments import Array, Truth
from sr_var.verify.numbers.intervals import Clusters, jackknife_interval
from utils.metrics import Moments

# the fourth cumulant needs four samples
COUNT_FOR_FLOOR = 4
# side of the squares over which Var(k₂)/σ⁴ is pooled: a pixel's own estimate is far too noisy
_POOL = 8
# beyond this shape both deviations are those of a normal error, to 10⁻⁴
_LARGEST_SHAPE, _NUM_SHAPES = 2000.0, 256
_SMALLEST_SHAPE = 0.02
# a pixel whose exact variance is zero has no relative error
_SMALLEST_VARIANCE = 1e-9


class TruthSection(TypedDict):
    """Section `truth` of `results.json`: metrics of both routes, and what n samples would show."""

    nets: dict[str, float]
    samples: dict[str, float]
    expected: dict[str, float]
    text: str


class Noise(NamedTuple):
    """What n samples leave open of every pixel, HWC; all but `std` nan below four samples.

    Attributes:
        variance_floor, std_floor: E|k₂ − σ²| and E|√k₂ − σ|.
        scatter, std_scatter: Var(k₂) and Var(√k₂).
        std: the samples' std, without the bias of √k₂.
    """

    variance_floor: Array
    std_floor: Array
    scatter: Array
    std_scatter: Array
    std: Array


def noise_of(samples: Moments) -> Noise:
    """Noise of k₂ and √k₂.

    With a = σ⁴/Var(k₂) pooled over squares of 8×8 pixels and the channels, and c, d, g as in
    `deviations_of_gamma`: the floors are k₂ · d(a) and √k₂/c(a) · g(a), Var(√k₂) = E k₂ − (E√k₂)²
    is k₂ (1 − c(a)²), and the std √k₂/c(a), since E√k₂ = c(a) σ: √k₂ itself is low on average, by
    1.3 % at 20 normal samples. All are linear in the unbiased k₂ or in √k₂/c, so none is biased by
    their noise. Var(k₂) is V̂, pixel by pixel. Below four samples a is that of a normal law,
    (n − 1)/2.
    """
    k2, n = samples.variance, samples.count
    is_known = n >= COUNT_FOR_FLOOR
    shape = gamma_shape(samples) if is_known else np.full_like(k2, (n - 1) / 2)
    of_variance, of_std, mean_root = deviations_of_gamma(shape)
    std = np.sqrt(k2) / mean_root
    if not is_known:
        unknown = np.full_like(k2, np.nan)
        return Noise(unknown, unknown, unknown, unknown, std)
    scatter = samples.variance_of_variance
    return Noise(k2 * of_variance, std * of_std, scatter, k2 * (1 - mean_root**2), std)


def std_of_samples(samples: Moments) -> Array:
    """The samples' std of every pixel (HWC) without the bias of √k₂ (`noise_of`)."""
    return noise_of(samples).std


def gamma_shape(samples: Moments) -> Array:
    """a = σ⁴/Var(k₂), pooled: Σ (k₂² − V̂) / Σ V̂ over squares, V̂ the unbiased Var(k₂); HWC.

    E(k₂²) = σ⁴ + Var(k₂), so both sums are unbiased. The kurtosis is at least 1, so Var(k₂)/σ⁴ is
    at least 2/n(n − 1); it is taken to be at most 2.
    """
    n, estimate = samples.count, samples.variance_of_variance
    scatter, square = _pooled(estimate), _pooled(samples.variance**2 - estimate)
    ratio = np.divide(scatter, square, out=np.full_like(scatter, 2.0), where=square > 0)
    ratio = np.where((square <= 0) & (scatter <= 0), 2 / (n - 1), ratio)  # no spread at all
    return np.asarray(1 / np.clip(ratio, 2 / (n * (n - 1)), 2.0))


def deviations_of_gamma(shape: Array) -> tuple[Array, Array, Array]:
    """d = E|X − 1|, g = E|√X − 1| and c = E√X of X = G/a, G gamma with shape a.

    d(a) = 2 a^(a−1) e^(−a) / Γ(a); c(a) = Γ(a + ½) / (Γ(a) √a);
    g(a) = c(a) (1 − 2 P(a + ½, a)) − (1 − 2 P(a, a)), P the regularised lower incomplete gamma
    function. Interpolated in log a in a table; beyond its end the errors are normal.
    """
    log_shapes, table = _table()
    log_a, root = np.log(shape), np.sqrt(shape)
    of_variance, of_std, mean_root = (np.interp(log_a, log_shapes, row) for row in table)
    return of_variance / root, of_std / root, mean_root


def truth_means(
    truth: Truth, nets: tuple[Array, ...], samples: tuple[Array, ...], num_samples: int
) -> dict[str, float]:
    """What `truth_metrics` needs of one image: means over its pixels.

    `nets` are their mean and variance, not clipped; `samples` are x̄ and k₂ of n = `num_samples`.
    """
    v, n = truth.variance, num_samples
    has_spread = v > _SMALLEST_VARIANCE
    safe = np.where(has_spread, v, 1.0)
    # rounding must not make it negative: it is at least v² 2/(n(n − 1))
    scatter = np.maximum(truth.fourth / n - v**2 * ((n - 3) / (n * (n - 1))), 0)
    shape = 1 / np.clip(scatter / safe**2, 2 / (n * (n - 1)), None)
    of_variance, of_std, _ = deviations_of_gamma(shape)
    means = {
        "truth.v": v.mean(),
        "truth.v_square": (v**2).mean(),
        "truth.fourth": truth.fourth.mean(),
        "truth.expected.square": v.mean() / n,
        "truth.expected.scatter": scatter.mean(),
        "truth.expected.relative": (of_variance * has_spread).sum() / max(has_spread.sum(), 1),
        "truth.expected.var_error": (v * of_variance).mean(),
        "truth.expected.std_error": (np.sqrt(v) * of_std).mean(),
    }
    for route, (mean, raw_variance) in (("nets", nets), ("samples", samples)):
        variance = np.maximum(raw_variance, 0)
        error = np.abs(variance - v)
        means |= {
            f"truth.{route}.square": ((mean - truth.mean) ** 2).mean(),
            f"truth.{route}.v": variance.mean(),
            f"truth.{route}.scatter": (error**2).mean(),
            f"truth.{route}.relative": (error / safe * has_spread).sum() / max(has_spread.sum(), 1),
            f"truth.{route}.var_error": error.mean(),
            f"truth.{route}.std_error": np.abs(np.sqrt(variance) - np.sqrt(v)).mean(),
        }
    return {name: float(value) for name, value in means.items()}


def truth_metrics(means: Mapping[str, Array]) -> dict[str, Array]:
    """Section `truth` from means over pixels (and images), by dotted name.

    For both routes, and as expected of n exact samples: `relative_mse` mean (m − μ)² / mean v
    (expected 1/n); `relative_var_error` mean |max(v̂, 0) − v| / v; `relative_rms_error`
    √(mean (v̂ − v)² / mean v²); `var_bias` mean v̂ / mean v − 1; `var_error`, `std_error` mean
    absolute errors in grey levels. Var(k₂) = μ₄/n − v² (n − 3)/(n (n − 1)).
    """
    found: dict[str, Array] = {}
    for route in ("nets", "samples", "expected"):
        of, v = f"truth.{route}.", means["truth.v"]
        found |= {
            of + "relative_mse": means[of + "square"] / v,
            of + "relative_var_error": means[of + "relative"],
            of + "relative_rms_error": np.sqrt(means[of + "scatter"] / means["truth.v_square"]),
            of + "var_bias": means.get(of + "v", v) / v - 1,
            of + "var_error": means[of + "var_error"],
            of + "std_error": means[of + "std_error"],
        }
    return found


def truth_text(
    truth: TruthSection, replicates: Mapping[str, Array], num_samples: int, clusters: Clusters
) -> str:
    """One sentence: do two forward passes beat n exact samples?

    Only where the 95 % interval of the difference says so: both errors are of the same images, so
    their difference is taken replicate by replicate (`intervals.leave_one_out`). Where there are
    too few units for that, `replicates` are empty, and the sentence is of these images alone.
    """
    said = []
    for key in ("relative_mse", "relative_rms_error"):
        net, exact = truth["nets"][key], truth["expected"][key]
        names = [f"truth.{route}.{key}" for route in ("nets", "expected")]
        of_nets, of_exact = (replicates.get(name) for name in names)
        word, interval = "beat" if net < exact else "do not beat", None
        if of_nets is not None and of_exact is not None:
            interval = jackknife_interval(net, of_nets, 0.95)
            gap = jackknife_interval(net - exact, of_nets - of_exact, 0.95) or [-1.0, 1.0]
            if gap[0] <= 0 <= gap[1]:
                word = "may or may not beat"
        ends = f" [{interval[0]:.3g}, {interval[1]:.3g}]" if interval else ""
        said.append((word, f"{net:.3g}{ends} against {exact:.3g}"))
    (mean_word, mean_errors), (var_word, var_errors) = said
    end = f"95 % intervals over {clusters.count} {clusters.noun}"
    if not clusters.is_enough:
        end = (
            f"this is of these {clusters.count} {clusters.noun}, and takes {clusters.needed} to "
            "be said of others"
        )
    return (
        f"Two forward passes {mean_word} {num_samples} exact samples for the mean (squared error / "
        f"variance {mean_errors}) and {var_word} them for the variance (relative rms error "
        f"{var_errors}); {end}."
    )


@lru_cache(maxsize=1)
def _table() -> tuple[Array, Array]:
    """log a, and d √a, g √a, c at each a; the first two tend to constants."""
    a = np.geomspace(_SMALLEST_SHAPE, _LARGEST_SHAPE, _NUM_SHAPES)
    d = 2 * np.exp((a - 1) * np.log(a) - a - gammaln(a))
    c = np.exp(gammaln(a + 0.5) - gammaln(a)) / np.sqrt(a)
    g = c * (1 - 2 * gammainc(a + 0.5, a)) - (1 - 2 * gammainc(a, a))
    return np.log(a), np.stack([d * np.sqrt(a), g * np.sqrt(a), c])


def _pooled(values: Array) -> Array:
    """The sum over each 8×8 square and the channels, at every pixel of the square; HWC."""
    starts = [np.arange(0, side, _POOL) for side in values.shape[:2]]
    total = np.add.reduceat(values.sum(axis=2), starts[0], axis=0)
    total = np.add.reduceat(total, starts[1], axis=1)
    spread = total.repeat(_POOL, axis=0).repeat(_POOL, axis=1)
    height, width = values.shape[:2]
    return np.broadcast_to(spread[:height, :width, None], values.shape)
