"""What the results in a folder were made with, so that one folder never holds those of two laws."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from utils.atomic_file import write_json_atomic
from utils.errors import DataError
from utils.json_file import read_json
from utils.storage_util import make_folder

_MAX_SHOWN = 200


def require_same_settings(
    path: str, settings: Mapping[str, Any], folder_flag: str = "--output_dir"
) -> None:
    """Remembers the settings in a file of the folder, and refuses any other ones.

    A setting that the record does not know was added since; it was what it is by default: off. One
    that only the record knows does not matter any more.

    Args:
        path: of the record; its folder is made.
        settings: JSON types.
        folder_flag: the flag that chooses the folder.

    Raises:
        DataError: names the settings that differ.
        StorageError: if no folder can be there.
    """
    folder = os.path.dirname(path)
    try:
        stored = read_json(path)
        if not isinstance(stored, dict):
            raise ValueError("not a record of settings")
    except (FileNotFoundError, NotADirectoryError):
        make_folder(folder, folder_flag)
        write_json_atomic(path, dict(settings))
        return
    except ValueError:
        raise DataError(f"{path} is damaged; delete it if the results are of this run") from None
    differing = [
        f"--{name} {_brief(settings.get(name))} (there: {_brief(stored.get(name))})"
        for name in sorted(settings)
        if (stored.get(name) or False) != (settings.get(name) or False)
    ]
    if differing:
        raise DataError(
            f"{folder} holds results made with other settings: {', '.join(differing)}; give "
            f"another {folder_flag}"
        )


def _brief(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[:_MAX_SHOWN]}…"
