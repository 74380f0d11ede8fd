"""The readers: digits, CIFAR-10, ImageNet and LSUN as people have them, image by image.

CIFAR-10 in its python version is pickles of Python 2, read without running anything in them. Each
of `data_batch_1` to `data_batch_5` and `test_batch` is a dict with `data`, uint8 (N, 3072): the
red, green and blue planes of 32×32 pixels, row by row; and `labels`, N integers. `batches.meta` has
`label_names`.

ImageNet is class folders, a tar of images, or the official tar of class tars; bytes are handed on
as they are: whether they are an image is found out by whoever stores them.

LSUN's lmdb exports are a folder a category, with `data.mdb` whose values are WebP or JPEG files.
The lmdb library maps the file into memory and trusts it: a damaged page can end the process. So a
process of its own reads, and this one gets bytes through a pipe; if it dies, that is an error like
any other.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from image_ddpm.importers.archives import (
    MAX_IMAGE_BYTES,
    Member,
    Skip,
    inner_members,
    tar_members,
)
from utils.files.atomic import open_binary, read_up_to
from utils.files.storage import problem_with_name
from utils.flags.groups import ERROR, SKIP
from utils.images.digits import load_digit_images
from utils.images.files import IMAGE_EXTENSIONS
from utils.images.folder import class_in_folder, class_in_name, is_hidden, list_files
from utils.process.errors import DataError
from utils.process.stop import leave_signals_to_parent
from utils.untrusted.pickles import loads_pickle

TRAIN, TEST = "train", "test"
SIDE = 32
MAX_PER_BATCH = 10_000
_META = "batches.meta"
_CIFAR_FOLDER = "cifar-10-batches-py"
# file → (folder of its images, what their numbers begin behind)
_BATCHES = {f"data_batch_{k + 1}": (TRAIN, k * MAX_PER_BATCH) for k in range(5)}
_BATCHES["test_batch"] = (TEST, 0)
_CIFAR_REMEDY = "get cifar-10-python.tar.gz again"
_TAR = ".tar"
# ImageNet's files name their class: such a name counts more than the folder around it
_WORDNET_NAME = re.compile(r"(n\d{8})_.+")
_LSUN_FILE = "data.mdb"
_SPLIT = re.compile(r"(?P<category>.+?)(?:_(?P<split>train|val|test))?(?:_lmdb)?")
_SECONDS_TO_END = 10.0
_IMAGE, _ENTRIES, _BAD = b"i", b"n", b"e"
_LSUN_REMEDY = "Unpack the category's zip file again, or get it again"
Content: TypeAlias = "bytes | NDArray[Any]"


@dataclass(frozen=True)
class Item:
    """One image on its way into the folder."""

    folder: str
    """Below the output folder; empty: the output folder itself."""
    label: str
    """Without underscores: what a trainer reads off the file name."""
    stem: str
    """Name of the file without its extension; begins with ``<label>_``."""
    suffix: str
    """Extension of bytes that are stored as they are; empty: by their format."""
    where: str
    """For messages: the archive and the member."""
    load: Callable[[], Content]
    """Bytes of an image file, or uint8 (H, W, 3) or (H, W). Called at most once, and before the
    next item is asked for: archives are read in their order."""


@dataclass(frozen=True)
class ImageSource:
    """All images of a source, and how many they are if that is known."""

    items: Iterable[Item]
    total: int | None


@dataclass
class ClassNamer:
    """Label and stem of images that are sorted into named classes.

    `classes` maps a label to the class it stands for; two classes of one label are refused.
    """

    classes: dict[str, str] = field(default_factory=dict)

    def name(self, path: str, class_name: str = "") -> tuple[str, str]:
        """(label, stem) of a file; `path` is relative, with `/` between folders.

        A file named like `n01440764_10026` shows its class itself. Else it is `class_name`, that of
        all files of the archive, or the folder that holds the file, or, in no folder, the name up
        to the first underscore. Underscores of a class become hyphens in its label, which ends at
        the first underscore.

        Raises:
            DataError: no class to be seen, or one that cannot be told from another.
        """
        stem = os.path.splitext(os.path.basename(path))[0]
        match = _WORDNET_NAME.fullmatch(stem)
        if match:
            class_name = match[1]
        class_name = class_name or class_in_folder(path) or class_in_name(path)
        if not class_name:
            raise DataError(
                f"{path} shows no class: name files class_number.JPEG or put them into class "
                "folders"
            )
        label = class_name.replace("_", "-")
        if self.classes.setdefault(label, class_name) != class_name:
            raise DataError(
                f"classes {class_name!r} and {self.classes[label]!r} would have one label, "
                f"{label!r}: rename one of them"
            )
        rest = stem.removeprefix(f"{class_name}_")
        return label, f"{label}_{rest}"


def class_label(name: object, where: str) -> str:
    """The label of a class name in a data set's file; DataError if it cannot start a file name."""
    problem = problem_with_name(name)
    if problem is None and isinstance(name, str) and "/" not in name and name[0] != ".":
        return name.replace("_", "-")
    raise DataError(f"{where}: class name {ascii(name)[:80]} is no part of a file name")


def read_digits(side: int) -> ImageSource:
    """1437 training and 360 test images (side, side), numbered from 1 as the library has them.

    Raises:
        DataError: if scikit-learn is not installed.
    """
    digits = load_digit_images(side)

    def items() -> Iterator[Item]:
        for folder, places in ((TRAIN, digits.training), (TEST, digits.test)):
            for i in sorted(places.tolist()):
                label, image = str(digits.labels[i]), digits.images[i]
                yield Item(folder, label, f"{label}_{i + 1:04d}", "", f"digit {i + 1}", image.copy)

    return ImageSource(items(), len(digits.images))


def read_cifar10(archive: str, skip: Skip) -> ImageSource:
    """All images in the order of the archive, (32, 32, 3); numbers count from 1 in each folder.

    `archive` is the tar.gz, or the folder that came out of it, or the one around that.

    Raises:
        DataError: here or while the images are read: files missing, damaged, or not CIFAR-10's.
    """
    label_names: list[str] = []
    found: list[str] = []
    for file in _cifar_files(archive, skip):
        if file.name in found:
            raise DataError(f"{archive} holds two files {file.name}; {_CIFAR_REMEDY}")
        found.append(file.name)
        if file.name == _META:
            label_names = _label_names(file)
    missing = [name for name in (_META, *_BATCHES) if name not in found]
    if missing:
        raise DataError(f"{archive} lacks {', '.join(missing)} of CIFAR-10; {_CIFAR_REMEDY}")
    return ImageSource(_cifar_items(archive, label_names), len(_BATCHES) * MAX_PER_BATCH)


def _cifar_files(archive: str, skip: Skip) -> Iterator[Member]:
    """Meta and batches, to be read one by one."""
    wanted = (_META, *_BATCHES)
    if not os.path.isdir(archive):
        for member in tar_members(archive, skip):
            name = member.name.rpartition("/")[2]
            if name in wanted:
                yield replace(member, name=name)
        return
    inner = os.path.join(archive, _CIFAR_FOLDER)
    folder = inner if os.path.isdir(inner) else archive
    for name in wanted:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            yield Member(name, os.path.getsize(path), path, partial(open_binary, path))


def _cifar_items(archive: str, label_names: list[str]) -> Iterator[Item]:
    # the first pass has told what is passed by
    for file in _cifar_files(archive, lambda message: None):
        if file.name == _META:
            continue
        folder, offset = _BATCHES[file.name]
        images, labels = _batch(file, len(label_names))
        for i, (image, y) in enumerate(zip(images, labels, strict=True)):
            stem = f"{label_names[y]}_{offset + i + 1:05d}"
            where = f"{file.where}: image {i}"
            yield Item(folder, label_names[y], stem, "", where, image.copy)


def _content(file: Member) -> dict[str, object]:
    """The dict of a file; keys of Python 2 and 3 alike."""
    content = loads_pickle(file.read(), name=file.where)
    if not isinstance(content, dict):
        raise DataError(f"{file.where} holds no dict; {_CIFAR_REMEDY}")
    return {_text(key): value for key, value in content.items()}


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _label_names(file: Member) -> list[str]:
    names = _content(file).get("label_names")
    if not isinstance(names, list) or not names:
        raise DataError(f"{file.where} holds no label_names; {_CIFAR_REMEDY}")
    labels = [class_label(_text(name), file.where) for name in names]
    if len(set(labels)) != len(labels):
        raise DataError(f"{file.where} names a class twice; {_CIFAR_REMEDY}")
    return labels


def _batch(file: Member, num_classes: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Images (N, 32, 32, 3) and their labels."""
    content = _content(file)
    data, labels = content.get("data"), content.get("labels")
    size = 3 * SIDE * SIDE
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.shape[1:] != (size,):
        raise DataError(f"{file.where}: 'data' is not uint8 of shape (N, {size}); {_CIFAR_REMEDY}")
    if not isinstance(labels, list) or len(labels) != len(data) or len(data) > MAX_PER_BATCH:
        raise DataError(
            f"{file.where}: 'labels' is no list of a label for each of its {len(data)} images (at "
            f"most {MAX_PER_BATCH}); {_CIFAR_REMEDY}"
        )
    for y in labels:
        if type(y) is not int or not 0 <= y < num_classes:
            raise DataError(
                f"{file.where}: label {ascii(y)[:80]}, not 0 to {num_classes - 1}; {_CIFAR_REMEDY}"
            )
    return data.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1), labels


def read_imagenet(
    archive: str, skip: Skip, log: Callable[[str], None] = print, on_bad_image: str = ERROR
) -> ImageSource:
    """The images of a folder or a tar, with the labels of `ClassNamer`.

    `archive` is a folder with one of images, class folders or class tars; or a tar (or tar.gz) of
    images, or of such tars (`ILSVRC2012_img_train.tar`). `skip` is told of all that is passed by;
    with `on_bad_image` `skip` also images with unfit names, and what is no plain file.

    Raises:
        DataError: here or while the images are read; names the file, what is wrong, the remedy.
    """
    namer = ClassNamer()
    if not os.path.isdir(archive):
        return ImageSource(_tar_items(tar_members(archive, skip), namer, skip), None)
    endings = (*IMAGE_EXTENSIONS, _TAR)
    names = list_files(archive, log, "--archive", on_bad_image, endings=endings)
    has_tars = any(name.endswith(_TAR) for name in names)
    items = _folder_items(archive, names, namer, skip, on_bad_image)
    return ImageSource(items, None if has_tars else len(names))


def _folder_items(
    folder: str, names: list[str], namer: ClassNamer, skip: Skip, on_bad_image: str
) -> Iterator[Item]:
    for name in names:
        path = os.path.join(folder, name)
        if name.endswith(_TAR):
            yield from _tar_items(tar_members(path, skip), namer, skip, _class_of_tar(name))
        elif os.path.isfile(path):
            yield _item(name, path, partial(_read_file, path), namer)
        elif on_bad_image == SKIP:
            skip(f"{ascii(path)[:200]} is no plain file")
        else:
            raise DataError(
                f"{path} is no plain file; take it out of the folder, or leave such out with "
                "--on_bad_image skip"
            )


def _tar_items(
    members: Iterator[Member], namer: ClassNamer, skip: Skip, class_name: str = ""
) -> Iterator[Item]:
    """Of a tar of images and of class tars; of one class, if it is named."""
    for member in members:
        if member.name.endswith(_TAR) and not class_name:
            inner = inner_members(member, skip)
            yield from _tar_items(inner, namer, skip, _class_of_tar(member.name))
        elif _is_image(member, skip):
            yield _item(member.name, member.where, member.read, namer, class_name)


def _class_of_tar(name: str) -> str:
    return os.path.basename(name).removesuffix(_TAR)


def _is_image(member: Member, skip: Skip) -> bool:
    if is_hidden(member.name):  # what file managers leave
        return False
    if not member.name.lower().endswith(IMAGE_EXTENSIONS):
        skip(f"{member.where} is no image ({', '.join(IMAGE_EXTENSIONS)})")
        return False
    return True


def _item(
    name: str, where: str, load: Callable[[], bytes], namer: ClassNamer, class_name: str = ""
) -> Item:
    try:
        label, stem = namer.name(name, class_name)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    return Item("", label, stem, os.path.splitext(name)[1], where, load)


def _read_file(path: str) -> bytes:
    data = read_up_to(path, MAX_IMAGE_BYTES + 1)
    if len(data) > MAX_IMAGE_BYTES:
        raise DataError(f"{path}: more than {MAX_IMAGE_BYTES} bytes; take it out of the folder")
    return data


def read_lsun(archive: str) -> ImageSource:
    """The images of one category, or of all whose folders lie in `archive`, in order of keys.

    `church_outdoor_train_lmdb` gives `church-outdoor_train_0000001`.

    Raises:
        DataError: here or while the images are read: lmdb is not installed, no export, or a
            damaged one.
    """
    try:
        import lmdb  # noqa: F401
    except ImportError:
        raise DataError(
            "--source lsun needs the package lmdb: pip install lmdb (or pip install -r "
            "requirements-lsun.txt)"
        ) from None
    folders = [archive]
    if not os.path.isfile(os.path.join(archive, _LSUN_FILE)):
        entries = sorted(os.listdir(archive)) if os.path.isdir(archive) else []
        paths = [os.path.join(archive, entry) for entry in entries if not is_hidden(entry)]
        folders = [path for path in paths if _is_export(path)]
    if not folders:
        raise DataError(
            f"{archive} holds no {_LSUN_FILE}, nor does a folder in it; unpack LSUN's zip file and "
            "give its folder, as church_outdoor_train_lmdb"
        )
    streams = [_Stream(folder) for folder in folders]
    total = sum(stream.num_entries() for stream in streams)
    return ImageSource((item for stream in streams for item in stream.items()), total)


def _is_export(folder: str) -> bool:
    """Whether a folder is an export; DataError if it cannot be looked at, lest it be missing."""
    try:
        return _LSUN_FILE in os.listdir(folder)
    except NotADirectoryError:
        return False
    except OSError as error:
        raise DataError(
            f"--archive: folder {folder} cannot be listed ({error.strerror}); make it readable, or "
            "move it away"
        ) from None


class _Stream:
    """One export: how many images, and the images."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        match = _SPLIT.fullmatch(os.path.basename(os.path.abspath(folder)))
        assert match is not None
        self._label = class_label(match["category"], folder)
        self._prefix = f"{self._label}_{match['split']}_" if match["split"] else f"{self._label}_"

    def num_entries(self) -> int:
        """The number of keys, as the file's header claims it."""
        with contextlib.closing(self._messages()) as messages:
            return int(next(messages)[1:])

    def items(self) -> Iterator[Item]:
        """The images in order of their keys."""
        with contextlib.closing(self._messages()) as messages:
            next(messages)
            for number, message in enumerate(messages, 1):
                stem = f"{self._prefix}{number:07d}"
                where = f"{self._folder}: image {number}"
                yield Item("", self._label, stem, "", where, partial(bytes, message[1:]))

    def _messages(self) -> Generator[bytes, None, None]:
        # spawn: a forked copy would share this process's threads and signal handlers
        context = multiprocessing.get_context("spawn")
        receiver, sender = context.Pipe(duplex=False)
        reader = context.Process(target=_serve, args=(self._folder, sender), daemon=True)
        reader.start()
        sender.close()
        num_images = num_entries = 0
        try:
            while True:
                message = receiver.recv_bytes(MAX_IMAGE_BYTES + 1)
                if message[:1] == _BAD:
                    problem = message[1:].decode("utf-8", "replace")
                    raise DataError(f"{self._folder}, behind image {num_images}: {problem}")
                num_images += message[:1] == _IMAGE
                num_entries = int(message[1:]) if message[:1] == _ENTRIES else num_entries
                if num_images > num_entries:
                    raise EOFError  # pages that lead in circles
                yield message
        except EOFError:
            receiver.close()
            reader.join(_SECONDS_TO_END)
            if reader.exitcode != 0 or num_images != num_entries:
                raise DataError(
                    f"{self._folder}/{_LSUN_FILE}: damaged: of {num_entries} images, {num_images} "
                    f"could be read (the reader ended with {reader.exitcode}). {_LSUN_REMEDY}"
                ) from None
        finally:
            receiver.close()  # the reader's next message fails, and it ends
            reader.join(_SECONDS_TO_END)
            reader.kill()


def _serve(folder: str, sender: Connection) -> None:
    """Run in a process of its own: sends the number of entries, then every value."""
    import lmdb

    leave_signals_to_parent()
    with contextlib.suppress(BrokenPipeError):
        try:
            with lmdb.open(folder, readonly=True, lock=False, readahead=False) as env:
                _check_length(env, os.path.join(folder, _LSUN_FILE))
                sender.send_bytes(_ENTRIES + str(env.stat()["entries"]).encode())
                with env.begin(buffers=True) as transaction:
                    _send_values(transaction.cursor(), sender)
        except (lmdb.Error, ValueError) as error:
            sender.send_bytes(_BAD + f"{error}. {_LSUN_REMEDY}".encode())


def _check_length(env: object, path: str) -> None:
    """Reading a page beyond the end of the file would end the process."""
    info, stat = env.info(), env.stat()  # type: ignore[attr-defined]
    size, expected = os.path.getsize(path), (info["last_pgno"] + 1) * stat["psize"]
    if size < expected:
        raise ValueError(f"{_LSUN_FILE} is cut off: {size} of {expected} bytes")


def _send_values(cursor: object, sender: Connection) -> None:
    for value in cursor.iternext(keys=False, values=True):  # type: ignore[attr-defined]
        if len(value) > MAX_IMAGE_BYTES:
            raise ValueError(f"a value of {len(value)} bytes, more than {MAX_IMAGE_BYTES}")
        sender.send_bytes(_IMAGE + bytes(value))
