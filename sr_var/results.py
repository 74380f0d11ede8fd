"""Result folders of the test scripts: what is already done, and files that are whole or not there.

Layout: ``<output_dir>/<image name>/<file>`` (docs/file_formats.md).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from utils import dist_util
from utils.atomic_file import atomic_write, sha256_of, write_json_atomic
from utils.crop_data import Entry
from utils.errors import DataError
from utils.image_util import safe_join
from utils.json_file import read_json
from utils.pixel_util import image_to_bytes, to_hwc
from utils.storage_util import make_folder

# kinds of networks whose results have the same names
_SAME_NAMES = MappingProxyType(
    {"mean": ("baseline",), "var": ("baseline",), "baseline": ("mean", "var")}
)
# items of a training batch that are shown in TensorBoard
PICTURES_IN_STRIP = 4


class ResultFolder:
    """Results of one network (kind, step) for many images.

    A stamp remembers the checkpoint that they come from: results of the same checkpoint are kept
    and not computed again, results of another one are removed at the start.

    Args:
        output_dir: ``--output_dir``.
        kind: ``mean``, ``var`` or ``baseline``.
        step: of the network, in the file names.
        file_names: the files that make an image done, in writing order.
        model_paths: checkpoints that the results depend on.
        apply_orientation: how the images are read, see ``utils.data_flags``.
    """

    def __init__(
        self,
        output_dir: str,
        kind: str,
        step: int,
        file_names: Sequence[str],
        model_paths: Sequence[str],
        apply_orientation: bool = False,
    ) -> None:
        self.output_dir, self.file_names = output_dir, tuple(file_names)
        # the others (the low-res image) are the same for every checkpoint
        self._own_files = frozenset(file for file in file_names if f"_{step}." in file)
        self._stamp_path = stamp_path(output_dir, kind, step)
        self.seconds_path = seconds_path(output_dir, kind, step)
        self._other_stamps = [stamp_path(output_dir, other, step) for other in _SAME_NAMES[kind]]
        self._model_paths = model_paths
        self._settings = {"apply_orientation": True} if apply_orientation else {}

    def path(self, name: str, file_name: str) -> str:
        """Path of a result; its folder is made.

        Raises:
            ValueError: if the name leads out of ``output_dir``.
        """
        folder = safe_join(self.output_dir, name)
        make_folder(folder)
        return os.path.join(folder, file_name)

    def pending(self, entries: Sequence[Entry]) -> list[Entry]:
        """The images that are still to do; all ranks get the same answer.

        Raises:
            DataError: if the folder holds another kind of network's results of the same names, or
                its stamp cannot be read; nothing is removed.
            StorageError: if no folder can be there.
        """
        for path in self._other_stamps:
            if os.path.exists(path):
                raise DataError(
                    f"--output_dir {self.output_dir} holds results of the same names by another "
                    f"kind of network ({os.path.basename(path)}); give another folder"
                )
        stamp = {"models": [sha256_of(path) for path in self._model_paths], **self._settings}
        is_same = _read_stamp(self._stamp_path) == stamp
        pending = [entry for entry in entries if not (is_same and self._is_done(entry.name))]
        dist_util.barrier()  # nobody writes before everybody has looked
        if not is_same and dist_util.is_main():
            make_folder(self.output_dir, "--output_dir")
            self._remove_results()
            write_json_atomic(self._stamp_path, stamp)
        dist_util.barrier()
        return pending

    def _is_done(self, name: str) -> bool:
        folder = safe_join(self.output_dir, name)
        return all(os.path.exists(os.path.join(folder, file)) for file in self.file_names)

    def _remove_results(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.seconds_path)
        # of all images, listed or not: the stamp speaks for the whole folder
        for folder, _, files in os.walk(self.output_dir, onerror=_refuse):
            for file in self._own_files.intersection(files):
                os.remove(os.path.join(folder, file))


def _refuse(error: OSError) -> None:
    # results in a folder that cannot be listed would pass for those of this checkpoint
    raise error


def _read_stamp(path: str) -> dict[str, Any] | None:
    """What the results come from; None if the folder has none yet.

    Raises:
        DataError: if it cannot be read, which says nothing about the results.
    """
    try:
        stamp = read_json(path)
        if not isinstance(stamp, dict) or not isinstance(stamp.get("models"), list):
            raise ValueError("no record of checkpoints")
    except (FileNotFoundError, NotADirectoryError):  # the latter is told where folders are made
        return None
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error}), so which "
            "checkpoint the results beside it come from is not known; give another --output_dir, "
            "or delete it to have them removed and made again"
        ) from None
    return stamp


def stamp_path(output_dir: str, kind: str, step: int) -> str:
    """The record of the checkpoints that a network's results come from."""
    return os.path.join(output_dir, f".{kind}_{step}.json")


def seconds_path(output_dir: str, kind: str, step: int) -> str:
    """The record (``utils.time_util``) of what a network's passes took."""
    return os.path.join(output_dir, f".seconds_{kind}_{step}.json")


def to_grey_bytes(image_255: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Grey levels in float to the nearest uint8 level, clipped."""
    return np.clip(np.rint(image_255), 0, 255).astype(np.uint8)


def save_array(path: str, array: np.ndarray) -> None:  # type: ignore[type-arg]
    """Writes an array as ``.npy``."""
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)


def strip(*images: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
    """NCHW images in [-1, 1] as one HWC uint8 picture: a row an item, a column an argument."""
    rows = [torch.cat([image[i] for image in images], dim=2) for i in range(len(images[0]))]
    return to_hwc(image_to_bytes(torch.cat(rows, dim=1)))
