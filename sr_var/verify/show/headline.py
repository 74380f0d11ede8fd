"""What a verification found, in plain words: the first thing that page and terminal say."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sr_var.verify.numbers.summary import Summary
from utils.metrics import percent_in_table
from utils.report.html import number

# a share of real pixels that is this near to that of an exact law is as wanted
_NEAR = 0.015
_WORDS_OF_INPUT = {
    "bilinear upsampling": "the input",
    "shrunk, off the low-res image": "degraded again, off the input",
    "rms of the block means": "degraded mean, off the input (rms)",
    "consistency with the low-res image": "consistency with the input",
}


def look_up(summary: Mapping[str, object], name: str) -> object:
    """What has a dotted name; None where a part of the path is missing."""
    value: object = summary
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def known_number(summary: Mapping[str, object], name: str) -> float | None:
    """The number of a dotted name; None where there is none, or it is not finite."""
    value = look_up(summary, name)
    is_known = isinstance(value, (int, float)) and math.isfinite(value)
    return float(value) if is_known and isinstance(value, (int, float)) else None


def exact_value(summary: Mapping[str, object], metric: str) -> float | None:
    """What exact nets show of a calibration metric: of the known law, else of a normal one."""
    for where in ("reference.known_law.nets", "reference.nets"):
        if (value := known_number(summary, f"{where}.{metric}")) is not None:
            return value
    return None


def counts(summary: Summary) -> str:
    """How many images, and how many samples of each."""
    images, samples = summary["num_images"], summary["num_samples"]
    return f"{number(images)} images, " + (
        f"{number(samples)} samples each" if samples else "no samples"
    )


def of_input(label: str, summary: Mapping[str, object]) -> str:
    """A label in the words of what the nets see, where that is not block means."""
    if "degradation" not in summary:
        return label
    for word, other in _WORDS_OF_INPUT.items():
        label = label.replace(word, other)
    return label.replace("real pixels", f"{_which(summary)} pixels")


def _which(summary: Mapping[str, object]) -> str:
    """Pixels that the law is held against: `hidden` ones, else `real`, all of them."""
    return str(summary.get("pixels", "real"))


def headline(summary: Summary) -> list[str]:
    """A few sentences: do the intervals hold, how good is the mean, do nets and samples agree."""
    seen = _seen(summary)
    said = [seen, _intervals(summary), _gain(summary), *_agreement(summary)]
    return [sentence for sentence in said if sentence]


def _seen(summary: Summary) -> str:
    """What the nets see, and whether they were trained on it."""
    of_samples = summary.get("samples_trained_degradation")
    told = " Mean and variance are judged by the hidden pixels." * ("pixels" in summary)
    told += f" The samples' network was trained on --degradation {of_samples}." * bool(of_samples)
    if "degradation" not in summary:
        return told.strip()
    if "trained_degradation" not in summary:
        return f"The nets see --degradation {summary['degradation']}.{told}"
    return (
        f"The nets were trained on --degradation {summary['trained_degradation']} and see another "
        f"one here, {summary['degradation']}: what holds there need not hold here.{told}"
    )


def details(summary: Summary) -> list[str]:
    """The verdicts with their numbers."""
    sections = ("verdict", "truth", "calibrated", "clusters")
    texts = [look_up(summary, f"{section}.text") for section in sections]
    return [text for text in texts if isinstance(text, str) and text]


def _intervals(summary: Summary) -> str:
    share = known_number(summary, "calibration.nets.coverage_95")
    if share is None:
        return ""
    wanted = exact_value(summary, "coverage_95") or 0.95
    gap = share - wanted
    hold = "hold"
    if abs(gap) > _NEAR:
        # of few images there is no interval, and only they can be spoken of
        ends = summary["intervals"].get("calibration.nets.coverage_95")
        is_open = ends is not None and ends[0] <= wanted + _NEAR and ends[1] >= wanted - _NEAR
        word = "may be" if is_open else "seem" if ends is None else "are"
        hold = f"{word} too {'narrow' if gap < 0 else 'wide'}"
    of_exact = f"; those of exact nets would hold {100 * wanted:.1f} %"
    inside = f"{100 * share:.1f} % of the {_which(summary)} pixels"
    return (
        f"The nets' intervals {hold}: {inside} lie in the 95 % "
        f"interval{of_exact if abs(wanted - 0.95) > 5e-4 else ''}."
    )


def _gain(summary: Summary) -> str:
    net, bilinear = (known_number(summary, f"high_res.psnr_{of}") for of in ("net", "bilinear"))
    if net is None or bilinear is None:
        return ""
    word = "better" if net >= bilinear else "worse"
    other = of_input("bilinear upsampling", summary)
    return f"Their mean is {abs(net - bilinear):.2f} dB {word} than {other} (PSNR {net:.2f} dB)."


def _agreement(summary: Summary) -> list[str]:
    """Of mean and variance, against those of the samples."""
    if "verdict" not in summary:
        return []
    samples = number(summary["num_samples"])
    margin = summary["verdict"]["margin"]
    unit = {"mean": "of a std", "variance": "of itself"}
    said = []
    for key, subject in (("mean", "Their mean"), ("variance", "Their variance")):
        part = look_up(summary, f"verdict.{key}")
        value = known_number(summary, f"verdict.{key}.value")
        if not isinstance(part, Mapping) or value is None:
            continue
        off = f"{percent_in_table(max(value, 0.0))} %"
        word = str(part.get("verdict"))
        is_open = f"; whether that is below {100 * margin:g} % is undecided"
        found = {
            "equivalent": f"equals that of {samples} samples within {100 * margin:g} % {unit[key]}",
            "different": f"differs from that of {samples} samples by {off} {unit[key]}",
        }.get(
            word,
            f"is about {off} {unit[key]} off that of {samples} samples"
            + (is_open if word == "undecided" else ""),
        )
        said.append(f"{subject} {found}.")
    return said
