"""Which timesteps of a long chain a shorter process visits (its argument `use_timesteps`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from diffusion.forward import MIN_ALPHAS_CUMPROD, cumulated_alphas, half_log_snr
from diffusion.schedules import Float64Array, check_betas

DDIM_PREFIX = "ddim"
LOG_SNR_PREFIX = "logsnr"


def space_timesteps(
    num_timesteps: int, section_counts: str | Sequence[int], betas: ArrayLike | None = None
) -> set[int]:
    """Return the timesteps of a chain that a shorter process keeps.

    Args:
        num_timesteps: length T of the chain.
        section_counts: how many steps to keep of each of as many equal sections, as numbers or as
            a string: "250" keeps 250 evenly spaced ones with both ends, "10,15,20" keeps more of
            the later third than of the first. "ddimN" keeps N with an integer stride from 0 on,
            the spacing of Song et al. 2021 (arXiv 2010.02502), appendix D.2. "logsnrN" keeps N
            evenly spaced in log-SNR, see `log_snr_spaced`.
        betas: (T,) variances of the chain; "logsnrN" needs them, the others do without.

    Returns:
        Timesteps in [0, num_timesteps).

    Raises:
        TypeError: when `section_counts` is neither a string nor a list of whole numbers.
        ValueError: when the chain cannot be spaced so, or a string cannot be read.
    """
    if isinstance(section_counts, str):
        if section_counts.startswith(LOG_SNR_PREFIX):
            wanted = _whole_number(section_counts.removeprefix(LOG_SNR_PREFIX), section_counts)
            return log_snr_spaced(_betas_of_all(num_timesteps, betas), wanted)
        if section_counts.startswith(DDIM_PREFIX):
            wanted = _whole_number(section_counts.removeprefix(DDIM_PREFIX), section_counts)
            return _integer_stride(num_timesteps, wanted)
        section_counts = [_whole_number(part, section_counts) for part in section_counts.split(",")]
    if not isinstance(section_counts, (list, tuple)):
        raise TypeError(
            "section_counts must be a string such as '250' or a list of whole numbers, got "
            f"{section_counts!r} of type {type(section_counts).__name__}"
        )
    if not section_counts:
        raise ValueError("section_counts is empty: name at least one number of steps")
    size, extra = divmod(num_timesteps, len(section_counts))
    kept: set[int] = set()
    start = 0
    for i, count in enumerate(section_counts):
        section_size = size + (1 if i < extra else 0)
        kept.update(start + step for step in _evenly_spaced(section_size, count))
        start += section_size
    return kept


def _betas_of_all(num_timesteps: int, betas: ArrayLike | None) -> Float64Array:
    if betas is None or len(checked := check_betas(betas)) != num_timesteps:
        raise ValueError(
            f"'{LOG_SNR_PREFIX}N' spaces timesteps by their noise: pass the betas of all "
            f"{num_timesteps} steps"
        )
    return checked


def _whole_number(text: str, whole: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(
            f"cannot read the timestep respacing {whole!r}: {text!r} is not a whole number; valid "
            "ones are '250', '10,15,20', 'ddim50' or 'logsnr25'"
        ) from error


def _integer_stride(num_timesteps: int, wanted: int) -> set[int]:
    for stride in range(1, num_timesteps):
        steps = range(0, num_timesteps, stride)
        if len(steps) == wanted:
            return set(steps)
    raise ValueError(
        f"cannot keep exactly {wanted} of {num_timesteps} steps with an integer stride: choose a "
        f"divisor of {num_timesteps}, or {wanted} without '{DDIM_PREFIX}'"
    )


def log_snr_spaced(betas: Float64Array, count: int) -> set[int]:
    """Return `count` timesteps whose log-SNR is as evenly spaced as the chain allows.

    The targets divide [lambda_{T-1}, lambda_0] evenly, with lambda = log(√alpha_bar /
    √(1 - alpha_bar)) (Lu et al. 2022, arXiv 2211.01095); each takes the nearest
    timestep, so both ends are kept. Where a chain has fewer timesteps than targets (near t = 0,
    where lambda changes most from one to the next), later targets take the next free timesteps; at
    the other end, which the cosine schedule jumps to, earlier targets leave room for later ones.

    Args:
        betas: (T,) variances of the chain.
        count: how many, from 2 to T.

    Raises:
        ValueError: for another count, or a chain that ends without signal.
    """
    size = len(betas)
    if not 2 <= count <= size:
        raise ValueError(
            f"cannot keep {count} of {size} steps with both ends among them: '{LOG_SNR_PREFIX}N' "
            f"takes N from 2 to {size}"
        )
    alphas_cumprod = cumulated_alphas(betas)
    if alphas_cumprod[-1] <= MIN_ALPHAS_CUMPROD:
        raise ValueError(
            f"a chain that ends without signal has no log-SNR there: '{LOG_SNR_PREFIX}{count}' "
            "needs a schedule whose last beta is below 1"
        )
    lambdas = half_log_snr(alphas_cumprod)
    targets = np.linspace(lambdas[0], lambdas[-1], count)
    nearest = np.abs(lambdas[None, :] - targets[:, None]).argmin(axis=1)  # (count,)
    kept: list[int] = []
    for i, step in enumerate(nearest.tolist()):
        next_free = kept[-1] + 1 if kept else 0
        last_possible = size - count + i  # leaves one for each of the targets to come
        kept.append(min(max(step, next_free), last_possible))
    return set(kept)


def _evenly_spaced(section_size: int, count: int) -> list[int]:
    """Return `count` of the steps 0, ..., section_size - 1, both ends among them."""
    if count < 0:
        raise ValueError(f"cannot keep {count} steps of a section: counts start at 0")
    if section_size < count:
        raise ValueError(
            f"cannot divide section of {section_size} steps into {count}: ask for at most "
            f"{section_size} there"
        )
    stride = (section_size - 1) / (count - 1) if count > 1 else 1.0
    steps = []
    position = 0.0
    for _ in range(count):
        steps.append(round(position))
        # A running sum, as its rounding decides the ties and with them which steps a trained
        # network is used at.
        position += stride
    return steps
