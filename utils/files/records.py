"""What the results in a folder were made with, so that one folder never holds those of two laws."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from utils.files.atomic import write_json_atomic
from utils.files.identity import differences
from utils.files.json import read_json
from utils.files.storage import make_folder
from utils.process.errors import DataError


def require_same_settings(
    path: str,
    settings: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any],
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
        stored = read_json(path)
        if not isinstance(stored, dict):
            raise ValueError("not a record of settings")
    except (FileNotFoundError, NotADirectoryError):
        make_folder(folder, folder_flag)
        write_json_atomic(path, dict(settings))
        return
    except ValueError:
        raise DataError(f"{path} is damaged; delete it if the results are of this run") from None
    found = differences(stored, settings, defaults)
    if found:
        raise DataError(
            f"{folder} holds results made with other settings: {', '.join(map(str, found))}; give "
            f"another {folder_flag}"
        )
