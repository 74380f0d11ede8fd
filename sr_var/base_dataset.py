"""The images of the data set, as the info dicts list them; ``utils.crop_data`` cuts them."""

from __future__ import annotations

import os

from utils.crop_data import Entry, listed_entries


def load_entries(
    data_info_dict_path: str, data_dir: str, flag: str = "--data_info_dict_path"
) -> list[Entry]:
    """All images of an info dict, in the dict's order.

    The dict's documented misnaming ``data/imagenet/`` is read as ``data/sr_imagenet/`` where only
    that exists.

    Args:
        data_info_dict_path: the pickle.
        data_dir: the folder of the images.
        flag: which named the pickle, for messages.

    Raises:
        DataError: if the dict or the folder is missing, the dict empty, or a name unsafe.
    """
    path = existing_path(data_info_dict_path, ("data/imagenet/", "data/sr_imagenet/"))
    return listed_entries(path, data_dir, flag)


def existing_path(path: str, misspelling: tuple[str, str]) -> str:
    """The path itself, or its documented correction if only that exists (and says so)."""
    corrected = path.replace(*misspelling)
    if os.path.exists(path) or corrected == path or not os.path.exists(corrected):
        return path
    print(f"notice: {path} does not exist; using {corrected}")
    return corrected
