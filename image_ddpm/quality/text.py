"""What the terminal shows of a comparison; computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def table(results: Mapping[str, Any]) -> str:
    """The figures of ``results.json`` as lines: name, value, what it is to be held against."""
    reference, samples = results["reference"], results["samples"]
    frechet, kernel, paired = (results[key] for key in ("frechet", "kernel", "paired"))
    rows = [
        ("features", f"{results['features'] or 'of an unknown kind'}, {results['dimension']} dim."),
        ("images", f"{reference['count']} reference, {samples['count']} samples"),
        ("Fréchet distance", _number(frechet["distance"])),
    ]
    if frechet["floor"] is not None:
        std, count = _number(frechet["floor_of_halves_std"]), frechet["count_of_half"]
        halves = f"{_number(frechet['floor_of_halves'])} (std {std}) of halves, {count} + {count}"
        rows.append(("  its floor", f"{_number(frechet['floor'])}, from {halves}"))
    rows.append(("  floor of a normal law", _number(frechet["gaussian_floor"])))
    if kernel is not None:
        value = f"{_number(kernel['distance'])} ± {_number(kernel['standard_error'])}"
        drawn = f"{kernel['num_subsets']} subsets of {kernel['subset_size']}"
        rows.append(("kernel distance", f"{value} ({drawn}, std {_number(kernel['subset_std'])})"))
    if paired is not None:
        for key, name, unit in (("psnr", "PSNR", " dB"), ("ssim", "SSIM", "")):
            error = _number(paired[f"{key}_standard_error"])
            rows.append((name, f"{_number(paired[key])}{unit} ± {error}"))
        rows.append(("pairs", f"{paired['count']}, {paired['num_identical']} identical"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def notices(results: Mapping[str, Any]) -> list[str]:
    """What a reader should know before quoting a figure."""
    lines = []
    counts = [results[key]["count"] for key in ("reference", "samples")]
    if min(counts) <= results["dimension"]:
        lines.append(
            f"notice: {min(counts)} images span fewer than the {results['dimension']} dimensions: "
            "the Fréchet distance is far too large and its floors are rough; use more images"
        )
    if not results["is_same_kind_checked"]:
        lines.append(
            "notice: an .npz does not say what made its features; that both are of one kind was "
            "not checked beyond their dimension"
        )
    if results["frechet"]["floor"] is None:
        lines.append("notice: no floor from halves: the reference has no features, or fewer than 4")
    if results["kernel"] is None:
        lines.append("notice: no kernel distance: one set has no features, or fewer than 3")
    if results["paired"] is not None and results["paired"]["num_identical"]:
        lines.append("notice: identical pairs have no finite PSNR; its mean is over the others")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
