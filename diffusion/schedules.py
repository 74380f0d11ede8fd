"""Noise schedules: the variances beta_t of the forward chain, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64Array = NDArray[np.float64]

# Ho et al. 2020 (arXiv 2006.11239), section 4: the end points for 1000 steps.
LINEAR_REFERENCE_STEPS = 1000
LINEAR_BETA_START = 1e-4
LINEAR_BETA_END = 0.02

# Nichol & Dhariwal 2021 (arXiv 2102.09672), section 3.2.
COSINE_OFFSET = 0.008
COSINE_MAX_BETA = 0.999

# Of "shifted_cosine": factor of the noise std. Details of a super-resolved image have a std of
# about 0.1, so that most of cosine's steps are spent where nothing of them is left.
SHIFT = 0.2


def linear_beta_schedule(num_steps: int) -> Float64Array:
    """Return betas that rise linearly, scaled so that any number of steps ends at the same noise.

    beta runs from c·1e-4 to c·0.02 with c = 1000 / num_steps (Ho et al. 2020, section 4, is
    num_steps = 1000).

    Raises:
        ValueError: for fewer than 20 steps, where the last beta would exceed 1.
    """
    scale = LINEAR_REFERENCE_STEPS / num_steps
    if scale * LINEAR_BETA_END > 1.0:
        min_steps = round(LINEAR_REFERENCE_STEPS * LINEAR_BETA_END)
        raise ValueError(
            f"the linear schedule needs at least {min_steps} steps, got {num_steps}: its last beta "
            f"would be {scale * LINEAR_BETA_END:.3g} > 1. Use a longer chain and respace it "
            "(1000 steps with timestep_respacing), or the cosine schedule"
        )
    return np.linspace(
        scale * LINEAR_BETA_START, scale * LINEAR_BETA_END, num_steps, dtype=np.float64
    )


def cosine_beta_schedule(num_steps: int, shift: float = 1.0) -> Float64Array:
    """Return the betas whose cumulative signal follows a squared cosine.

    alpha_bar(u) = cos²((u + s)/(1 + s)·π/2) with s = 0.008 and
    beta_t = min(1 - alpha_bar((t+1)/T)/alpha_bar(t/T), 0.999)
    (Nichol & Dhariwal 2021, equation 17).

    A `shift` multiplies the std of the noise in x_t / √alpha_bar, as Hoogeboom et al. 2023
    (arXiv 2301.11093), section 2.1, do for larger images:
    alpha_bar' = alpha_bar / (alpha_bar + shift²·(1 - alpha_bar)).
    """
    u = np.arange(num_steps + 1, dtype=np.float64) / num_steps
    alpha_bar = np.cos((u + COSINE_OFFSET) / (1.0 + COSINE_OFFSET) * np.pi / 2.0) ** 2
    if shift != 1.0:
        alpha_bar /= alpha_bar[0]  # the chain begins without noise
        alpha_bar = alpha_bar / (alpha_bar + shift**2 * (1.0 - alpha_bar))
    betas: Float64Array = np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], COSINE_MAX_BETA)
    return betas


def get_named_beta_schedule(name: str, num_steps: int) -> Float64Array:
    """Return the betas, (T,) float64 in (0, 1], of the schedule of that name.

    Args:
        name: "linear", "cosine", "shifted_cosine", which has a fifth of cosine's noise, or "sqrt",
            beta_t = √(linear's beta_t). "sqrt_linear" is what latent diffusion calls linear.
        num_steps: T.

    Raises:
        ValueError: for an unknown name, or a number of steps the schedule cannot have.
    """
    if num_steps < 1:
        raise ValueError(f"a noise schedule needs at least 1 step, got {num_steps}")
    if name in ("linear", "sqrt_linear"):
        return linear_beta_schedule(num_steps)
    if name == "sqrt":
        return np.sqrt(linear_beta_schedule(num_steps))
    if name == "cosine":
        return cosine_beta_schedule(num_steps)
    if name == "shifted_cosine":
        return cosine_beta_schedule(num_steps, SHIFT)
    raise ValueError(
        f"unknown noise schedule {name!r}: choose 'linear', 'cosine', 'shifted_cosine', 'sqrt' or "
        "'sqrt_linear'"
    )


def check_betas(betas: ArrayLike) -> Float64Array:
    """Return `betas` as a float64 copy.

    Raises:
        ValueError: unless they are a non-empty list of variances in (0, 1].
    """
    checked = np.array(betas, dtype=np.float64)
    if checked.ndim != 1 or checked.size == 0:
        raise ValueError(f"betas must be one number per step, got shape {checked.shape}")
    bad = checked[~((checked > 0.0) & (checked <= 1.0))]
    if bad.size:
        raise ValueError(
            f"betas must lie in (0, 1], got {bad[0]}; see get_named_beta_schedule for valid ones"
        )
    return checked
