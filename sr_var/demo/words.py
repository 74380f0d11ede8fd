"""What came of `make demo`, in plain words."""

from __future__ import annotations

import json
from typing import Any

from sr_var.demo.commands import ITAKURA_SAITO, NUM_EXACT_SAMPLES, Preset


def in_plain_words(preset: Preset) -> list[str]:
    """What the two verifications found, a sentence a line.

    Raises:
        OSError: their results are not there.
    """
    photos = _results(preset.log_dir)
    nets, samples = (photos["calibration"][kind] for kind in ("nets", "samples"))
    oracle = _results(preset.oracle.log_dir(ITAKURA_SAITO))
    truth = oracle["truth"]
    high_res, cost = photos["high_res"], photos["cost"]
    gain = high_res["psnr_net"] - high_res["psnr_bilinear"]
    beyond = high_res["psnr_net"] - high_res["psnr_samples"]
    mean, exact_mean = (truth[kind]["relative_mse"] for kind in ("nets", "samples"))
    variance, exact_variance = (truth[kind]["relative_var_error"] for kind in ("nets", "samples"))
    return [
        f"On {photos['num_images']} pieces of photographs that no network has seen:",
        f"- {_percent(nets['coverage_95'])} of the real pixels lie in the nets' 95 % intervals "
        f"({_percent(samples['coverage_95'])} in those of {photos['num_samples']} diffusion "
        "samples).",
        f"  error² / variance is {nets['z2']:.2f} ({samples['z2']:.2f}); 1 is right.",
        *_calibrated(photos),
        f"- Their mean is {gain:+.1f} dB better than bilinear upsampling and {beyond:+.1f} dB than "
        "the mean of the samples,",
        f"  by {cost['nets']['evaluations_per_image']} network passes an image in place of "
        f"{cost['samples']['evaluations_per_image']}.",
        "Against the truth, on images whose law is known:",
        f"- The mean is off by {_percent(mean, 2)} of the variance; that of {NUM_EXACT_SAMPLES} "
        f"samples of a perfect sampler is off by {_percent(exact_mean, 2)}.",
        f"- The variance is off by {_percent(variance)}; theirs is off by "
        f"{_percent(exact_variance)}.",
        *_with_probability(oracle),
    ]


def _calibrated(photos: dict[str, Any]) -> list[str]:
    """What the calibration made of the intervals."""
    found = photos["calibrated"]
    level, of = f"{100 * found['level']:g} %", f"{found['cluster']}s"
    return [
        f"- Their {level} intervals hold {_percent(found['raw_coverage'])}; calibrated on "
        f"{found['num_units']} other {of}, {_percent(found['coverage'])}",
        f"  of {found['num_test_units']} {of} ({level} or more are expected: docs/calibration.md).",
    ]


def _with_probability(oracle: dict[str, Any]) -> list[str]:
    """What risk control made of the intervals on the oracle."""
    found = oracle["calibrated"]
    level = f"{100 * found['level']:g} %"
    return [
        f"- Their {level} intervals hold {_percent(found['raw_coverage'])}; calibrated on "
        f"{found['num_units']} further images, {_percent(found['coverage'])}",
        f"  ({level} or more are promised with a probability of {100 * (1 - found['delta']):g} %).",
    ]


def _percent(share: float, num_digits: int = 1) -> str:
    return f"{100 * share:.{num_digits}f} %"


def _results(folder: str) -> dict[str, Any]:
    with open(f"{folder}/results.json", encoding="utf-8") as file:
        results: dict[str, Any] = json.load(file)
    return results
