"""What every reader yields: images that are read when asked for, with a label and a file name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from numpy.typing import NDArray

from utils.files.storage import problem_with_name
from utils.images.digits import load_digit_images
from utils.images.folder import class_in_folder, class_in_name
from utils.process.errors import DataError

TRAIN, TEST = "train", "test"
MAX_IMAGE_BYTES = 1 << 26
Content: TypeAlias = "bytes | NDArray[Any]"
Skip: TypeAlias = Callable[[str], None]

# ImageNet's files name their class: such a name counts more than the folder around it
_WORDNET_NAME = re.compile(r"(n\d{8})_.+")


@dataclass(frozen=True)
class Item:
    """One image on its way into the folder."""

    folder: str
    """Below the output folder; empty: the output folder itself."""
    label: str
    """Without underscores: what a trainer reads off the file name."""
    stem: str
    """Name of the file without its extension; begins with ``<label>_``."""
    suffix: str
    """Extension of bytes that are stored as they are; empty: by their format."""
    where: str
    """For messages: the archive and the member."""
    load: Callable[[], Content]
    """Bytes of an image file, or uint8 (H, W, 3) or (H, W). Called at most once, and before the
    next item is asked for: archives are read in their order."""


@dataclass(frozen=True)
class ImageSource:
    """All images of a source, and how many they are if that is known."""

    items: Iterable[Item]
    total: int | None


@dataclass
class ClassNamer:
    """Label and stem of images that are sorted into named classes.

    `classes` maps a label to the class it stands for; two classes of one label are refused.
    """

    classes: dict[str, str] = field(default_factory=dict)

    def name(self, path: str, class_name: str = "") -> tuple[str, str]:
        """(label, stem) of a file; `path` is relative, with `/` between folders.

        A file named like `n01440764_10026` shows its class itself. Else it is `class_name`, that of
        all files of the archive, or the folder that holds the file, or, in no folder, the name up
        to the first underscore. Underscores of a class become hyphens in its label, which ends at
        the first underscore.

        Raises:
            DataError: no class to be seen, or one that cannot be told from another.
        """
        stem = os.path.splitext(os.path.basename(path))[0]
        match = _WORDNET_NAME.fullmatch(stem)
        if match:
            class_name = match[1]
        class_name = class_name or class_in_folder(path) or class_in_name(path)
        if not class_name:
            raise DataError(
                f"{path} shows no class: name files class_number.JPEG or put them into class "
                "folders"
            )
        label = class_name.replace("_", "-")
        if self.classes.setdefault(label, class_name) != class_name:
            raise DataError(
                f"classes {class_name!r} and {self.classes[label]!r} would have one label, "
                f"{label!r}: rename one of them"
            )
        rest = stem.removeprefix(f"{class_name}_")
        return label, f"{label}_{rest}"


def class_label(name: object, where: str) -> str:
    """The label of a class name in a data set's file; DataError if it cannot start a file name."""
    problem = problem_with_name(name)
    if problem is None and isinstance(name, str) and "/" not in name and name[0] != ".":
        return name.replace("_", "-")
    raise DataError(f"{where}: class name {ascii(name)[:80]} is no part of a file name")


def read_digits(side: int) -> ImageSource:
    """1437 training and 360 test images (side, side), numbered from 1 as the library has them.

    Raises:
        DataError: if scikit-learn is not installed.
    """
    digits = load_digit_images(side)

    def items() -> Iterator[Item]:
        for folder, places in ((TRAIN, digits.training), (TEST, digits.test)):
            for i in sorted(places.tolist()):
                label, image = str(digits.labels[i]), digits.images[i]
                yield Item(folder, label, f"{label}_{i + 1:04d}", "", f"digit {i + 1}", image.copy)

    return ImageSource(items(), len(digits.images))
