"""The info dict: which images a data set has, with the label of each class; a pickle.

`{class name: {"y": label, "file_names": [name, …]}}`; names are relative to the folder of the
images, and may lack `.JPEG`. A large one is read once; later processes map an index of it.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import StrPath, is_remote, sha256_of
from utils.files.storage import problem_with_name, size_of
from utils.images.listing import ImageList, index_of, is_listing
from utils.process.errors import DataError
from utils.untrusted.index import Index, kept_index, places_of
from utils.untrusted.pickle_machine import short_repr
from utils.untrusted.pickles import load_pickle, loads_pickle, read_pickle
from utils.untrusted.safe_tensors import SUFFIX

# smaller lists are read in a moment
INDEXED_BYTES = 1 << 20
_INDEX_ENDING, _INDEX_FORMAT = f".index{SUFFIX}", 1
_FORM = '{class name: {"y": integer label, "file_names": [name, …]}}'


class ClassInfo(TypedDict):
    """One class of an info dict: its integer label and its images, named relative to `data_dir`."""

    y: int
    file_names: list[str]


def make_info(names: Sequence[str], class_by_name: Mapping[str, str]) -> dict[str, ClassInfo]:
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


def load_info_dict(path: StrPath) -> dict[str, ClassInfo]:
    """Read the list of images of a data set, in the order of the file.

    Other keys of a class's entry are dropped.

    Raises:
        UnsafePickleError: see `load_pickle`.
        DataError: another form, no image at all, or a name that could lead out of `data_dir`.
    """
    return _checked(load_pickle(path), path)


def _checked(content: object, path: StrPath) -> dict[str, ClassInfo]:
    if not isinstance(content, dict):
        raise DataError(f"{os.fspath(path)}: holds {short_repr(content)}, expected {_FORM}")
    info = {}
    for class_name, entry in content.items():
        if not isinstance(class_name, str):
            raise DataError(
                f"{os.fspath(path)}: class name {short_repr(class_name)} is no string; "
                f"expected {_FORM}"
            )
        try:
            info[class_name] = _class_info(entry)
        except ValueError as error:
            raise DataError(
                f"{os.fspath(path)}: class {short_repr(class_name)}: {error}; expected {_FORM}"
            ) from None
    if not any(entry["file_names"] for entry in info.values()):
        raise DataError(
            f"{os.fspath(path)}: lists no image; make it anew from a data_dir that has some"
        )
    return info


def _class_info(entry: object) -> ClassInfo:
    if not isinstance(entry, dict) or not {"y", "file_names"} <= entry.keys():
        raise ValueError(f"{short_repr(entry)} is not a dict with the keys 'y' and 'file_names'")
    label, names = entry["y"], entry["file_names"]
    is_integer = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    if not is_integer or label < 0:
        raise ValueError(f"'y' is {short_repr(label)}, not an integer from 0 up")
    if not isinstance(names, (list, tuple)):
        raise ValueError(f"'file_names' is {short_repr(names)}, not a list")
    for name in names:
        problem = problem_with_name(name)
        if problem is not None:
            raise ValueError(f"file name {short_repr(name)} {problem}; rename it")
    return {"y": int(label), "file_names": list(names)}


def listed_images(path: str) -> ImageList:
    """The images of an info dict, in the dict's order; raises as `load_info_dict`.

    A large one is indexed (`utils.untrusted.index`): its sha256 says whether the index is of it.
    """
    if size_of(path) < INDEXED_BYTES:
        return ImageList(Index(*_arrays_of(load_info_dict(path))))
    digest = sha256_of(path)
    make = functools.partial(_make_index, path, digest)
    key = f"info dict {digest}, format {_INDEX_FORMAT}"
    return ImageList(kept_index(places_of(path, _INDEX_ENDING), key, make, is_listing))


def _make_index(path: str, digest: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    print(f"reading {path} once; later runs find its index", flush=True)
    data = read_pickle(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise DataError(f"{path} changes while it is read; run again when it is written")
    return _arrays_of(_checked(loads_pickle(data, name=path), path))


def _arrays_of(
    info: Mapping[str, ClassInfo],
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    return index_of((item["y"], group, item["file_names"]) for group, item in info.items())


def listed_entries(
    data_info_dict_path: str, data_dir: str, flag: str = "--data_info_dict_path"
) -> ImageList:
    """All images of an info dict, in the dict's order; `flag` named it.

    Raises:
        DataError: if the dict or the folder is missing, the dict empty, or a name unsafe.
    """
    try:
        images = listed_images(data_info_dict_path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        problem = "is a folder" if isinstance(error, IsADirectoryError) else "does not exist"
        raise DataError(
            f"{flag} {data_info_dict_path or repr('')} {problem}; name a pickle that lists images, "
            "as sr_data_info.py writes it"
        ) from None
    if not is_remote(data_dir) and not os.path.isdir(data_dir):
        raise DataError(f"--data_dir {data_dir} is not a folder; point it at the images")
    return images
