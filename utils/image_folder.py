"""Which images a folder holds and which class each is of; no image is opened.

Classes sorted by name give the labels.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from utils.atomic_file import is_remote
from utils.errors import DataError
from utils.image_util import DEFAULT_EXTENSION, IMAGE_EXTENSIONS

Info = dict[str, dict[str, object]]


def scan(data_dir: str, flag: str = "--data_dir") -> list[str]:
    """Names of all images below a folder, sorted; ``/`` separates, ``.JPEG`` is left off.

    Args:
        data_dir: local or remote.
        flag: which named it, for messages.

    Raises:
        DataError: if the folder is missing or holds no image.
    """
    names = []
    for folder, files in _folders(data_dir, flag):
        prefix = folder[len(data_dir) :].strip("/")
        for file in files:
            if file.lower().endswith(IMAGE_EXTENSIONS) and not file.startswith("."):
                name = f"{prefix}/{file}" if prefix else file
                short = name.removesuffix(DEFAULT_EXTENSION)
                # x.png.JPEG would be looked for as x.png
                names.append(name if short.lower().endswith(IMAGE_EXTENSIONS) else short)
    if not names:
        raise DataError(f"{flag} {data_dir} holds no image ({', '.join(IMAGE_EXTENSIONS)})")
    return sorted(names)


def _folders(data_dir: str, flag: str) -> Iterator[tuple[str, Sequence[str]]]:
    """(folder, its files) of a local or remote tree; linked folders are entered once."""
    if is_remote(data_dir):
        import blobfile

        for folder, _, files in blobfile.walk(data_dir):
            yield folder, files
        return
    if not os.path.isdir(data_dir):
        raise DataError(f"{flag} {data_dir} is not a folder; point it at the images")
    entered: set[str] = set()
    for folder, folders, files in os.walk(data_dir, followlinks=True):
        entered.add(os.path.realpath(folder))
        paths = {name: os.path.realpath(os.path.join(folder, name)) for name in folders}
        folders[:] = [name for name, path in paths.items() if path not in entered]
        yield folder, files


def class_of(name: str, *, has_split_folder: bool = False) -> str:
    """The class in a name: the folder that holds the file, or, in a flat folder, the file name up
    to its first underscore (``n01440764_10026``).

    Args:
        name: as :func:`scan` gives it.
        has_split_folder: the first folder separates training from test images and is no class.

    Raises:
        DataError: for a file in a flat folder whose name has no underscore.
    """
    if has_split_folder:
        name = name.partition("/")[2] or name
    folder, _, file = name.rpartition("/")
    if folder:
        return folder.rpartition("/")[2]
    if "_" not in file:
        raise DataError(
            f"{name} shows no class: name files class_number.JPEG or put them into class folders"
        )
    return file.split("_")[0]


def make_info(names: Sequence[str], class_by_name: Mapping[str, str]) -> Info:
    """Class → label and names, for some of the images.

    Args:
        names: the images to list.
        class_by_name: of all images of the data set; its sorted classes give the labels.
    """
    labels = {key: y for y, key in enumerate(sorted(set(class_by_name.values())))}
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(class_by_name[name], []).append(name)
    return {key: {"y": labels[key], "file_names": members[key]} for key in sorted(members)}
