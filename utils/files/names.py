"""Names of files: as users write them, and made of other names and of numbers."""

from __future__ import annotations

import hashlib
import os
import re

# what nearly every file system takes
MAX_NAME_BYTES = 255
_DIGEST = re.compile("~[0-9a-f]{16}$")
# what tensorboardX lets through
_NOT_IN_TAGS = re.compile(r"[^-/\w.]")


def with_home(path: str) -> str:
    """A path whose ``~`` is the home folder, as no shell does it in ``--flag=~/x`` or a file.

    Raises:
        ValueError: if there is no such home folder; names the path and the remedy.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise ValueError(
            f"{path} is no home folder of anybody; give the whole path, or ./{path} for what has "
            "this very name"
        )
    return expanded


def flat_name(name: str, suffix: str = "") -> str:
    """The name of one file for a name with folders: ``a/b`` and ``.png`` give ``a__b.png``.

    Where ``__`` could be read in two ways, as in ``a__b/c``, and where the result would be longer
    than a file system takes, it ends in ``~`` and a digest of the name.
    """
    flat = name.replace("/", "__")
    is_plain = flat.replace("__", "/") == name and not _DIGEST.search(flat)
    if is_plain and len(os.fsencode(flat + suffix)) <= MAX_NAME_BYTES:
        return flat + suffix
    tail = _digest(name) + suffix
    while len(os.fsencode(flat + tail)) > MAX_NAME_BYTES:
        flat = flat[:-1]
    return flat + tail


def tag_name(name: str) -> str:
    """The end of a TensorBoard tag, in which most characters become ``_``."""
    return name + _digest(name) if _NOT_IN_TAGS.search(name) else name


def number_name(value: float) -> str:
    """A number as part of a file's name: as short as tells it from all others."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


def _digest(name: str) -> str:
    return f"~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}"
