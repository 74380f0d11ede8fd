"""Pickle files from anybody's hands, read without being able to execute anything.

Not for checkpoints (`torch.load` with `weights_only=True` reads those). `load_pickle` yields plain
values (dict, list, tuple, str, bytes, int, float, bool, None), numpy arrays and numpy scalars, or
raises `UnsafePickleError`; on top of it stand the three schemas of this project: an array, an info
dict that lists the images of a data set, and a dict of model flags.

How a pickle is kept from doing harm is told in `pickle_opcodes` and `pickle_arrays`.
"""

from __future__ import annotations

import os
import pickle
import re
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import StrPath, read_up_to, write_bytes_atomic
from utils.process.errors import DataError
from utils.untrusted.pickle_arrays import UnsafePickleError, brief
from utils.untrusted.pickle_opcodes import interpret_pickle
from utils.untrusted.pickle_values import ValueFinisher

__all__ = [
    "ClassInfo",
    "UnsafePickleError",
    "dump_pickle",
    "load_args",
    "load_array",
    "load_info_dict",
    "load_pickle",
    "loads_pickle",
    "problem_with_letters",
    "problem_with_name",
]

MAX_BYTES = 1 << 28
WRITE_PROTOCOL = 4

_REMEDY = (
    "Only plain Python values and numpy arrays of numbers are read, whole and in protocol 0 to 5. "
    "If the file is damaged, get it again; if you trust its maker, let them save it anew as dicts, "
    "lists and numeric arrays"
)
_INFO_FORM = '{class name: {"y": integer label, "file_names": [name, …]}}'
_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
# what stands for bytes of a file's name that are not UTF-8
_UNDECODED = re.compile("[\ud800-\udfff]")


class ClassInfo(TypedDict):
    """One class of an info dict: its integer label and its images, named relative to `data_dir`."""

    y: int
    file_names: list[str]


def load_pickle(path: StrPath, *, max_bytes: int = MAX_BYTES) -> Any:
    """Reads a pickle of plain values and numeric arrays, local or remote, protocols 0 to 5.

    Arrays come in native byte order, writable, with their shape and memory order; byte arrays and
    the strings of Python 2 (protocols 1 and 2) come as `bytes`.

    Args:
        path: file to read.
        max_bytes: a larger file is refused before it is read.

    Raises:
        FileNotFoundError: nothing is there.
        UnsafePickleError: the file is too large, damaged, or holds anything else; names the file,
            what offends and where, and the remedy.
    """
    data = read_up_to(path, max_bytes + 1)
    if len(data) > max_bytes:
        raise UnsafePickleError(
            f"{os.fspath(path)}: larger than {max_bytes} bytes; split it or pass a larger max_bytes"
        )
    return loads_pickle(data, name=os.fspath(path))


def loads_pickle(data: bytes, *, name: str = "pickle") -> Any:
    """What the bytes of a pickle describe; see `load_pickle`.

    Args:
        data: a whole pickle.
        name: what to call it in errors.

    Raises:
        UnsafePickleError: as `load_pickle`.
    """
    try:
        return ValueFinisher().finish(interpret_pickle(data))
    except UnsafePickleError as error:
        raise UnsafePickleError(f"{name}: refused: {error}. {_REMEDY}") from None


def dump_pickle(value: Any, path: StrPath) -> None:
    """Replaces `path` by a pickle of `value` (protocol 4), complete or not at all.

    Raises:
        UnsafePickleError: `load_pickle` would not read it back; nothing is written.
        StorageError: see `atomic_write`.
    """
    data = pickle.dumps(value, protocol=WRITE_PROTOCOL)
    loads_pickle(data, name=f"value for {os.fspath(path)}")
    write_bytes_atomic(path, data)


def load_array(path: StrPath, shape: tuple[int, ...] | None = None) -> NDArray[Any]:
    """Reads a pickle that holds one array of finite numbers.

    Args:
        path: file to read.
        shape: what the array must have, if given.

    Raises:
        UnsafePickleError: see `load_pickle`.
        DataError: not an array, another shape, booleans, or values that are not finite.
    """
    array = load_pickle(path)
    if not isinstance(array, np.ndarray):
        raise DataError(f"{os.fspath(path)}: holds {brief(array)} where an array should be")
    if shape is not None and array.shape != shape:
        raise DataError(
            f"{os.fspath(path)}: array of shape {array.shape}, expected {shape}; was it made with "
            "another image size?"
        )
    if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise DataError(
            f"{os.fspath(path)}: array of dtype {array.dtype} that is not made of finite numbers; "
            "make it again"
        )
    return array


def load_args(path: StrPath) -> dict[str, bool | int | float | str | None]:
    """Reads a pickled dict of model flags.

    Numpy scalars become Python numbers.

    Raises:
        UnsafePickleError: see `load_pickle`.
        DataError: not a dict of flag names to bool, int, float, str or None.
    """
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{os.fspath(path)}: holds {brief(content)}, expected a dict of flags")
    flags: dict[str, bool | int | float | str | None] = {}
    for name, stored in content.items():
        value = stored.item() if isinstance(stored, np.generic) else stored
        if not isinstance(name, str) or not isinstance(value, (bool, int, float, str, type(None))):
            raise DataError(
                f"{os.fspath(path)}: flag {brief(name)} has the value {brief(value)}; a flag is a "
                "name with a boolean, a number, a string or None"
            )
        flags[name] = value
    return flags


def load_info_dict(path: StrPath) -> dict[str, ClassInfo]:
    """Reads the list of images of a data set.

    Other keys of a class's entry are dropped.

    Returns:
        Class name → `{"y": label, "file_names": [relative names]}`, in the order of the file.

    Raises:
        UnsafePickleError: see `load_pickle`.
        DataError: another form, no image at all, or a name that could lead out of `data_dir`; names
            the file, the class and the value.
    """
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise DataError(f"{os.fspath(path)}: holds {brief(content)}, expected {_INFO_FORM}")
    info = {}
    for class_name, entry in content.items():
        if not isinstance(class_name, str):
            raise DataError(
                f"{os.fspath(path)}: class name {brief(class_name)} is no string; "
                f"expected {_INFO_FORM}"
            )
        try:
            info[class_name] = _class_info(entry)
        except ValueError as error:
            raise DataError(
                f"{os.fspath(path)}: class {brief(class_name)}: {error}; expected {_INFO_FORM}"
            ) from None
    if not any(entry["file_names"] for entry in info.values()):
        raise DataError(
            f"{os.fspath(path)}: lists no image; make it anew from a data_dir that has some"
        )
    return info


def _class_info(entry: object) -> ClassInfo:
    if not isinstance(entry, dict) or not {"y", "file_names"} <= entry.keys():
        raise ValueError(f"{brief(entry)} is not a dict with the keys 'y' and 'file_names'")
    label, names = entry["y"], entry["file_names"]
    is_integer = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    if not is_integer or label < 0:
        raise ValueError(f"'y' is {brief(label)}, not an integer from 0 up")
    if not isinstance(names, (list, tuple)):
        raise ValueError(f"'file_names' is {brief(names)}, not a list")
    for name in names:
        problem = problem_with_name(name)
        if problem is not None:
            raise ValueError(f"file name {brief(name)} {problem}; rename it")
    return {"y": int(label), "file_names": list(names)}


def problem_with_letters(name: str) -> str | None:
    """Why a name cannot be written down, whatever path it is; None if it can."""
    if _UNDECODED.search(name):
        return "has bytes that are not UTF-8"
    if _CONTROL.search(name):
        return "has a line break or another character that cannot be printed"
    return None


def problem_with_name(name: object) -> str | None:
    """Why `name` is unfit to be a path below a data or an output folder, or None if it is fit.

    Fit are relative names with forward slashes, without `..`, control characters, backslash or
    drive letter.
    """
    if not isinstance(name, str):
        return "is no string"
    if problem := problem_with_letters(name):
        return problem
    if "\\" in name:
        return "has a backslash; separate folders by '/'"
    if name.startswith("/") or _DRIVE.match(name):
        return "is absolute; give it relative to data_dir"
    parts = name.split("/")
    if ".." in parts:
        return "has '..', which could lead out of its folder"
    return "names no file" if parts[-1] in ("", ".") else None
