"""The flags of what the networks see of an image; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.script_util import flag

AREA = "area"
# what `--pairs_dir` stands for in the flags of a network; measured:4@0,65535 where measured images
# have other channels, or another range of values, than true ones
MEASURED = "measured"


def is_measured(degradation: str) -> bool:
    """Whether the words are those of measured pairs."""
    return degradation.partition(":")[0] == MEASURED


@dataclass(frozen=True)
class DegradationFlags:
    """How the low-res image X comes from the high-res one Y."""

    degradation: str = flag(
        AREA,
        "how X comes from Y: area for means of blocks, noise:25, blur:1.6, poisson:30, jpeg:30, "
        "mask:0.5, mask:FILE, grey, bits:3, bicubic:4; one after the other by +, side by side by "
        "&; noise:5-50 is drawn anew for each image (docs/restoration.md)",
    )
    condition_on_level: bool = flag(
        False, "tell the networks the levels that are drawn, each as a channel of X"
    )


@dataclass(frozen=True)
class TestDegradationFlags:
    """What is shown to networks that were trained on something else."""

    __test__ = False  # no test case, whatever pytest thinks of the name

    test_degradation: str = flag(
        "",
        "degradation of the test images in the place of the networks' own, to see what a shift "
        "does (docs/restoration.md); empty: their own",
    )
