"""What `results.json` of a comparison holds, and how it is said."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

Figures = dict[str, float | None]


class SetRecord(TypedDict):
    """One of the two sets, in `results.json`."""

    path: str
    count: int | None  # None: of published statistics, which do not say it


class Results(TypedDict):
    """The content of `results.json`; None for what cannot be computed or was not asked for."""

    features: str | None
    is_same_kind_checked: bool
    dimension: int
    reference: SetRecord
    samples: SetRecord
    frechet: Figures
    spatial_frechet: Figures | None
    kernel: Figures | None
    precision_recall: Figures | None
    inception_score: Figures | None
    paired: Figures | None


def table(results: Results) -> str:
    """The figures as lines: name, value, what it is to be held against."""
    frechet, kernel, paired = results["frechet"], results["kernel"], results["paired"]
    counts = ", ".join(
        f"{results[part]['count'] or 'an unknown number of'} {part}"
        for part in ("reference", "samples")
    )
    rows = [
        ("features", f"{results['features'] or 'of an unknown kind'}, {results['dimension']} dim."),
        ("images", counts),
        ("Fréchet distance", _number(frechet["distance"])),
    ]
    rows += _floors(frechet)
    spatial = results["spatial_frechet"]
    if spatial is not None:
        rows += [("spatial distance (sFID)", _number(spatial["distance"])), *_floors(spatial)]
    if kernel is not None:
        value = f"{_number(kernel['distance'])} ± {_number(kernel['standard_error'])}"
        drawn = f"{kernel['num_subsets']} subsets of {kernel['subset_size']}"
        rows.append(("kernel distance", f"{value} ({drawn}, std {_number(kernel['subset_std'])})"))
    rows += _shares_and_score(results)
    if paired is not None:
        for key, name, unit in (("psnr", "PSNR", " dB"), ("ssim", "SSIM", "")):
            error = _number(paired[f"{key}_standard_error"])
            rows.append((name, f"{_number(paired[key])}{unit} ± {error}"))
        rows.append(("pairs", f"{paired['count']}, {paired['num_identical']} identical"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _floors(frechet: Figures) -> Iterator[tuple[str, str]]:
    if frechet["floor_of_halves"] is not None:
        std, count = _number(frechet["floor_of_halves_std"]), frechet["count_of_half"]
        halves = f"{_number(frechet['floor_of_halves'])} (std {std}) of halves, {count} + {count}"
        yield "  its floor", f"{_number(frechet['floor'])}, from {halves}"
    yield "  floor of a normal law", _number(frechet["gaussian_floor"])


def _shares_and_score(results: Results) -> Iterator[tuple[str, str]]:
    shares, scores = results["precision_recall"], results["inception_score"]
    if shares is not None:
        for key in ("precision", "recall"):
            value = f"{_number(shares[key])} ± {_number(shares[f'{key}_standard_error'])}"
            halves = _number(shares[f"{key}_of_halves"])
            yield key, f"{value} (halves of the reference: {halves})"
    if scores is not None:
        value = f"{_number(scores['samples'])} ± {_number(scores['samples_standard_error'])}"
        yield "inception score", f"{value} (reference: {_number(scores['reference'])})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def notices(results: Results) -> Iterator[str]:
    """What a reader should know before quoting a figure."""
    counts = [results["reference"]["count"], results["samples"]["count"]]
    fewest = min((count for count in counts if count is not None), default=None)
    if fewest is not None and fewest <= results["dimension"]:
        yield (
            f"notice: {fewest} images span fewer than the {results['dimension']} dimensions: "
            "the Fréchet distance is far too large and its floors are rough; use more images"
        )
    if not results["is_same_kind_checked"]:
        yield (
            "notice: an .npz does not say what made its features; that both are of one kind was "
            "not checked beyond their dimension"
        )
    if results["frechet"]["floor_of_halves"] is None:
        yield "notice: no floor from halves: the reference has no features, or fewer than 4"
    if results["kernel"] is None:
        yield "notice: no kernel distance: one set has no features, or fewer than 3"
    if results["paired"] is not None and results["paired"]["num_identical"]:
        yield "notice: identical pairs have no finite PSNR; its mean is over the others"
