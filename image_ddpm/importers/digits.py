"""Scikit-learn's handwritten digits as images to train on."""

from __future__ import annotations

from collections.abc import Iterator

from image_ddpm.importers.items import TEST, TRAIN, ImageSource, Item
from utils.images.digits import DigitImages, load_digit_images


def read_digits(side: int) -> ImageSource:
    """1437 training and 360 test images (side, side), numbered from 1 as the library has them.

    Raises:
        DataError: if scikit-learn is not installed.
    """
    digits = load_digit_images(side)
    return ImageSource(_items(digits), len(digits.images))


def _items(digits: DigitImages) -> Iterator[Item]:
    for folder, places in ((TRAIN, digits.training), (TEST, digits.test)):
        for i in sorted(places.tolist()):
            label = str(digits.labels[i])
            where = f"digit {i + 1}"
            yield Item(folder, label, f"{label}_{i + 1:04d}", "", where, digits.images[i].copy)
