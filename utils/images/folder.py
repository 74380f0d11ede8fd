"""Which images a folder holds, which class each is of, how large the files; none is opened.

Classes sorted by name give the labels. What is left out is told; what might be an image or a class
and cannot be known is an error.
"""

from __future__ import annotations

import errno
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from utils.files.atomic import is_remote
from utils.files.storage import problem_with_name
from utils.flags.groups import AUTO, FOLDER, NAME, SKIP
from utils.images.files import (
    ALL_EXTENSIONS,
    DEFAULT_EXTENSION,
    IMAGE_EXTENSIONS,
    resolve_image_path,
)
from utils.machine.threads import num_cores
from utils.process.errors import DataError

Log = Callable[[str], None]
# what systems keep beside anybody's files; so are names that begin with a dot
_SYSTEM_FOLDERS = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
_ENDING = re.compile(r"\.[a-z0-9]{1,8}")
_MAX_SHOWN = 5

# size and time of change of a file
Stamp = tuple[int, int]
# a remote store has no time that is cheap to ask for: only the name counts there
NO_STAMP: Stamp = (-1, -1)
_STAMPS_AT_ONCE = 1024


def scan(
    data_dir: str,
    log: Log,
    flag: str = "--data_dir",
    on_bad_image: str = "",
    problem_with: Callable[[str], str | None] = problem_with_name,
    *,
    endings: tuple[str, ...] = IMAGE_EXTENSIONS,
) -> list[str]:
    """Names of all images below a folder, sorted; `/` separates, `.JPEG` is left off.

    See `list_files`.
    """
    names = list_files(
        data_dir, log, flag, on_bad_image, endings=endings, problem_with=problem_with
    )
    return sorted(map(_short, names))


def _short(name: str) -> str:
    short = name.removesuffix(DEFAULT_EXTENSION)
    # x.png.JPEG would be looked for as x.png
    return name if short.lower().endswith(ALL_EXTENSIONS) else short


def list_files(
    folder: str,
    log: Log,
    flag: str,
    on_bad_image: str = "",
    *,
    endings: tuple[str, ...] = IMAGE_EXTENSIONS,
    problem_with: Callable[[str], str | None] = problem_with_name,
) -> list[str]:
    """Names of the files below a folder that have one of some endings; `/` separates.

    Hidden files and folders, those of systems among them, are left out. Linked folders are
    followed, but for those that lead to one that is listed already. Pipes, sockets and devices are
    listed like files: whoever reads them tells.

    Args:
        folder: local or remote; named by `flag`.
        log: receives what is left out, and why.
        on_bad_image: `skip` leaves out images with unfit names; empty: there is no such flag.
        problem_with: why a name is unfit; None of a fit one.

    Raises:
        DataError: the folder is missing or holds no such file, a folder below cannot be listed, a
            link leads nowhere, or a name is unfit.
    """
    found = _Found(endings)
    for prefix, names in _folders(folder, flag, found):
        found.add(prefix, names)
    unfit = {name: problem for name in found.names if (problem := problem_with(name))}
    if unfit and on_bad_image != SKIP:
        remedy = "" if not on_bad_image else "; --on_bad_image skip leaves them out"
        raise DataError(f"{flag} {folder}: {_unfit_names(unfit)}; rename them{remedy}")
    for line in found.left_out():
        log(f"notice: {line}")
    if unfit:
        log(f"warning: left out: {_unfit_names(unfit)}; rename them")
    names = [name for name in found.names if name not in unfit]
    if not names:
        left_out = "".join(f"; {line}" for line in found.left_out())
        raise DataError(f"{flag} {folder} holds no image ({', '.join(endings)}){left_out}")
    return sorted(names)


def _unfit_names(unfit: Mapping[str, str]) -> str:
    name, problem = next(iter(sorted(unfit.items())))
    return f"{len(unfit)} images with unfit names (the first: {name!r} {problem})"


class _Found:
    """Files of wanted endings, and what a listing passes by."""

    def __init__(self, endings: tuple[str, ...]) -> None:
        self.names: list[str] = []
        self.hidden_folders: list[str] = []
        self.linked_again: list[str] = []
        self.empty_folders: list[str] = []
        self._wanted = endings
        self._num_hidden = 0
        self._others: Counter[str] = Counter()

    def add(self, prefix: str, files: Iterable[str]) -> None:
        """Sort the files of one folder."""
        for file in files:
            if self.is_wanted(file):
                if file.startswith("."):
                    self._num_hidden += 1
                else:
                    self.names.append(f"{prefix}{file}")
            elif not file.startswith("."):
                ending = os.path.splitext(file)[1].lower()
                self._others[ending if _ENDING.fullmatch(ending) else "no ending"] += 1

    def is_wanted(self, file: str) -> bool:
        """Whether it is an image by its name."""
        return file.lower().endswith(self._wanted)

    def left_out(self) -> list[str]:
        """What is left out, a line a reason."""
        lines = []
        if self._others:
            shown = ", ".join(f"{ending} {n}" for ending, n in sorted(self._others.items())[:20])
            lines.append(
                f"{self._others.total()} files with other endings are left out ({shown}); read are "
                f"{', '.join(self._wanted)}"
            )
        if self.hidden_folders or self._num_hidden:
            images = [f"{self._num_hidden} images"] if self._num_hidden else []
            folders = [f"folders {_first(self.hidden_folders)}"] if self.hidden_folders else []
            lines.append(f"left out as hidden: {', '.join([*folders, *images])}")
        if self.empty_folders:
            lines.append(f"folders without images: {_first(self.empty_folders)}")
        if self.linked_again:
            lines.append(
                "links to folders that are listed already are left out: "
                f"{_first(self.linked_again)}"
            )
        return lines


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, sorted(names)[:_MAX_SHOWN]))
    return shown if len(names) <= _MAX_SHOWN else f"{shown} and {len(names) - _MAX_SHOWN} more"


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden, or kept there by a system."""
    return any(part.startswith(".") or part in _SYSTEM_FOLDERS for part in name.split("/"))


def _folders(folder: str, flag: str, found: _Found) -> Iterator[tuple[str, Sequence[str]]]:
    """(prefix of names, files) of each folder of a local or remote tree."""
    if is_remote(folder):
        import blobfile

        for place, _, files in blobfile.walk(folder):
            prefix = place[len(folder) :].strip("/")
            if not is_hidden(prefix):
                yield f"{prefix}/" if prefix else "", files
            elif not is_hidden(prefix.rpartition("/")[0]):
                found.hidden_folders.append(prefix)
        return
    if not os.path.isdir(folder):
        raise DataError(f"{flag} {folder} is not a folder; point it at the images")
    entered: set[str] = set()
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        place = os.path.join(folder, prefix[:-1]) if prefix else folder
        entered.add(os.path.realpath(place))
        files, below = [], []
        for entry in _entries(place, flag):
            if not _is_folder(entry, found, flag):
                files.append(entry.name)
            elif is_hidden(entry.name):
                found.hidden_folders.append(f"{prefix}{entry.name}")
            elif os.path.realpath(entry.path) in entered:
                found.linked_again.append(f"{prefix}{entry.name}")
            else:
                below.append(f"{prefix}{entry.name}/")
        if prefix and not below and not any(map(found.is_wanted, files)):
            found.empty_folders.append(prefix[:-1])
        yield prefix, files
        waiting += reversed(below)


def _entries(folder: str, flag: str) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted: which of two links is followed does not depend on the disk."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(
            f"{flag}: folder {folder!r} cannot be listed ({error.strerror}), and without its "
            "images labels would shift; make it readable, or move it away"
        ) from None


def _is_folder(entry: os.DirEntry[str], found: _Found, flag: str) -> bool:
    """Whether it is a folder, also behind a link; a link to nothing that may be one is an error."""
    try:
        is_folder = entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP and not is_hidden(entry.name):
            raise DataError(
                f"{flag}: {entry.path!r} cannot be looked at ({error.strerror}); make it readable, "
                "or move it away"
            ) from None
        is_folder = False
    if is_folder or found.is_wanted(entry.name) or is_hidden(entry.name):
        return is_folder  # a link to nothing in place of an image is a damaged image
    if entry.is_symlink() and not os.path.exists(entry.path):
        raise DataError(
            f"{flag}: {entry.path!r} is a link to nothing; if a folder of images was there, labels "
            "would shift without it: mend the link, or remove it"
        )
    return False


def class_in_folder(name: str) -> str:
    """The folder that holds the file; empty in a flat folder."""
    return name.rpartition("/")[0].rpartition("/")[2]


def class_in_name(name: str) -> str:
    """The file name up to its first underscore (`n01440764_10026`); empty without one."""
    start, underscore, _ = name.rpartition("/")[2].partition("_")
    return start if underscore else ""


def class_of(name: str, label_from: str = AUTO, *, has_split_folder: bool = False) -> str:
    """The class in a name: the folder that holds the file, or, in a flat folder, its name's start.

    `label_from` says to read it in one of them only; DataError where it shows no class there. A
    split folder, the first one, separates training from test images and is no class.
    """
    if has_split_folder:
        name = name.partition("/")[2] or name
    found = class_in_folder(name) if label_from != NAME else ""
    if not found and label_from != FOLDER:
        found = class_in_name(name)
    if not found:
        raise DataError(
            f"{name} shows no class ({label_from}): name files class_number.JPEG or put them into "
            "class folders"
        )
    return found


def other_reading(names: Sequence[str], classes: Sequence[str], source: str) -> list[str]:
    """One line of warning where file names and folders show classes, and not the same; or none.

    The names are without a folder that is no class; `classes` are what `source`, `name` or
    `folder`, says of them.
    """
    is_by_name = source == NAME
    others = [(class_in_folder if is_by_name else class_in_name)(name) for name in names]
    if others == list(classes) or not all(others) or len(set(others)) < 2:
        return []
    merged: dict[str, set[str]] = {}
    for one, other in zip(classes, others, strict=True) if is_by_name else ():
        if other.startswith(f"{one}_"):
            merged.setdefault(one, set()).add(other)
    told = "".join(
        f"; {' and '.join(map(repr, sorted(folders)[:_MAX_SHOWN]))} become one class, {one!r}"
        for one, folders in sorted(merged.items())[:_MAX_SHOWN]
        if len(folders) > 1
    )
    where = ("file names", "folders") if is_by_name else ("folders", "file names")
    other_source = FOLDER if is_by_name else NAME
    return [
        f"warning: labels are read from the {where[0]}, {_counted(classes)}; the {where[1]} say "
        f"{_counted(others)}{told}. --label_from {other_source} takes the {where[1]}, --label_from "
        f"{source} keeps this and says nothing"
    ]


def _counted(classes: Sequence[str]) -> str:
    counts = Counter(classes)
    shown = ", ".join(f"{key!r} {n}" for key, n in counts.most_common(_MAX_SHOWN))
    return f"{len(counts)} classes ({shown}{', …' if len(counts) > _MAX_SHOWN else ''})"


def file_stamps(names: Sequence[str], data_dir: str) -> NDArray[np.int64]:
    """Size and time of change of every image's file, (n, 2); FileNotFoundError without one."""
    stamps = np.full((len(names), 2), NO_STAMP, np.int64)
    if is_remote(data_dir):
        return stamps
    num_threads = 4 * num_cores()  # a network file system answers slowly, but many at a time

    def ask(first: int) -> None:
        some = names[first : first + _STAMPS_AT_ONCE]
        stamps[first : first + len(some)] = [file_stamp(name, data_dir) for name in some]

    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(ask, range(0, len(names), _STAMPS_AT_ONCE)):
            pass
    return stamps


def file_stamp(name: str, data_dir: str) -> Stamp:
    """The same of one image's file."""
    if is_remote(data_dir):
        return NO_STAMP
    path = resolve_image_path(data_dir, name)
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        if not os.path.islink(path):
            raise FileNotFoundError(
                f"{path}: no such image; check data_dir and the list of images"
            ) from error
        status = os.lstat(path)  # a link to nothing is a damaged image, until it is mended
    return status.st_size, status.st_mtime_ns
