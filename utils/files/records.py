"""What the results in a folder were made with, so that one folder never holds those of two laws."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from utils.files.atomic import JsonObject, StrPath, read_up_to, write_json_atomic
from utils.files.identity import differences
from utils.files.storage import make_folder
from utils.process.errors import DataError

# raises one of `_FAULTS` for a record that lacks what it should hold
Check = Callable[[JsonObject], object]
_FAULTS = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError)

MAX_BYTES = 1 << 26
_LARGEST = 1e150


def parse_json(text: bytes | str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: no JSON, not UTF-8, or nested too deeply; the message is short.
    """
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:  # shown whole, it holds the whole text
        raise ValueError(f"byte {error.start} is no UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number that float64 can hold with its square."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


def read_json(path: StrPath) -> Any:
    """What a JSON file says, local or remote.

    Raises:
        OSError: it cannot be read.
        ValueError: as :func:`parse_json`, or it is longer than any record of this project.
    """
    data = read_up_to(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    return parse_json(data)


def read_record(path: StrPath, remedy: str, check: Check | None = None) -> JsonObject:
    """Return the record, a JSON object, in a file.

    Args:
        path: local or remote.
        remedy: what to do about a damaged file.
        check: of its content.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such file.
        DataError: it cannot be read or is damaged; names the file, the reason and the remedy.
    """
    try:
        content = read_json(path)
        if not isinstance(content, dict):
            raise ValueError("no record")
        if check is not None:
            check(content)
    except (FileNotFoundError, NotADirectoryError):  # the latter where folders are made meanwhile
        raise
    except _FAULTS as error:
        reason = getattr(error, "strerror", None) or error
        if isinstance(error, KeyError):
            reason = f"{error} is missing"
        fault = "cannot be read" if isinstance(error, OSError) else "is damaged"
        raise DataError(f"{os.fspath(path)} {fault} ({reason}); {remedy}") from None
    return content


def find_record(path: StrPath, check: Check | None = None) -> JsonObject | None:
    """Return the record in a file; None where there is none that can be used."""
    try:
        return read_record(path, "", check)
    except (OSError, DataError):
        return None


def require_numbers(values: Iterable[object]) -> None:
    """Raise ValueError for what is no finite number."""
    if not all(map(is_number, values)):
        raise ValueError("its figures are no numbers")


def require_same_settings(
    path: str,
    settings: Mapping[str, object],
    *,
    defaults: Mapping[str, object],
    folder_flag: str = "--output_dir",
) -> None:
    """Remembers the settings in a file of the folder, and refuses any other ones.

    One that only the record knows does not matter any more.

    Args:
        path: of the record; its folder is made.
        settings: JSON types.
        defaults: of settings that were added since a record was written, which then is of them.
        folder_flag: the flag that chooses the folder.

    Raises:
        DataError: names the settings that differ.
        StorageError: if no folder can be there.
    """
    folder = os.path.dirname(path)
    try:
        stored = read_record(path, "delete it if the results are of this run")
    except (FileNotFoundError, NotADirectoryError):
        make_folder(folder, folder_flag)
        write_json_atomic(path, dict(settings))
        return
    found = differences(stored, settings, defaults)
    if found:
        raise DataError(
            f"{folder} holds results made with other settings: {', '.join(map(str, found))}; give "
            f"another {folder_flag}"
        )
