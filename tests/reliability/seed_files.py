"""Good files of every kind, and what reads them."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

RNG = np.random.default_rng(0)


@dataclass(frozen=True, repr=False)
class Reader:
    """A reader.

    Attributes:
        file: what the file is called; may be in a folder.
        seeds: good files.
        read: given the path.
        beside: what else is in the folder.
    """

    file: str
    seeds: Sequence[bytes]
    read: Callable[[str], object]
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def names(self, folder: Path) -> tuple[str, str]:
        """What a message may call it: its path or its folder, or its name in there."""
        return str((folder / self.file).parent), os.path.basename(self.file)


def pickles_of(*values: object) -> list[bytes]:
    """Each value by each protocol."""
    return [pickle.dumps(value, protocol) for value in values for protocol in range(6)]


def saved(save: Callable[..., object], *args: object, **keywords: Any) -> bytes:
    """What ``save`` writes."""
    buffer = io.BytesIO()
    save(buffer, *args, **keywords)
    return buffer.getvalue()


def npz_of(**arrays: Any) -> list[bytes]:
    """The arrays stored, and packed."""
    return [saved(save, **arrays) for save in (np.savez, np.savez_compressed)]


def torch_of(content: object) -> bytes:
    """A ``.pt`` file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def image_of(image_format: str, mode: str = "RGB", **options: bool) -> bytes:
    """A picture of 7×9 pixels of noise."""
    picture = Image.fromarray(RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)).convert(mode)
    return saved(picture.save, image_format, **options)


def tar_of(files: Mapping[str, bytes], mode: str = "w", form: int = tarfile.GNU_FORMAT) -> bytes:
    """An archive of files by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def json_of(value: object) -> list[bytes]:
    """The value as JSON."""
    return [json.dumps(value).encode()]
