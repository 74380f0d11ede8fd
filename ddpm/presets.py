"""Flag sets of published models, by name: a flag on the command line goes before its preset's.

Which there are is each task's business. No torch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from utils.script_util import with_values

# what belongs to a training; a sampling script has a batch size of another kind
_TRAINING_ONLY = ("lr", "batch_size", "schedule_sampler")


@dataclass(frozen=True)
class Preset:
    """One published model.

    Attributes:
        file: its checkpoint's published name.
        flags: what differs from the scripts' defaults.
    """

    file: str
    flags: Mapping[str, Any]


def make_preset(file: str, *parts: Mapping[str, Any], **more: Any) -> Preset:
    """A preset of flags that are put together; later ones win."""
    flags: dict[str, Any] = {}
    for part in (*parts, more):
        flags |= part
    return Preset(file, MappingProxyType(flags))


def settle_preset(
    args: argparse.Namespace,
    presets: Mapping[str, Preset],
    checkpoint_dir: str,
    *,
    flag: str = "preset",
    path_flag: str = "model_path",
) -> argparse.Namespace:
    """The arguments with the preset's values for the flags that were not given.

    They count as given. ``path_flag``, where the script has it, becomes
    ``<checkpoint_dir>/<published file>``.
    """
    name = getattr(args, flag)
    if not name:
        return args
    values = dict(presets[name].flags)
    if hasattr(args, path_flag):
        values = {key: value for key, value in values.items() if key not in _TRAINING_ONLY}
        values[path_flag] = os.path.join(checkpoint_dir, presets[name].file)
    changed = {
        key: value
        for key, value in values.items()
        if hasattr(args, key) and key not in args.given_flags
    }
    given = args.given_flags | changed.keys()
    return with_values(args, **changed, given_flags=given)
