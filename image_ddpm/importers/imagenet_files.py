"""ImageNet as people have it: class folders, a tar of images, or the official tar of class tars.

Bytes are handed on as they are; whether they are an image is found out by whoever stores them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from image_ddpm.importers.archive_files import Member, inner_members, tar_members
from image_ddpm.importers.image_items import MAX_IMAGE_BYTES, ClassNamer, ImageSource, Item, Skip
from utils.atomic_file import read_up_to
from utils.errors import DataError
from utils.image_util import IMAGE_EXTENSIONS
from utils.safe_pickle import problem_with_name

_TAR = ".tar"


def read_imagenet(archive: str, skip: Skip) -> ImageSource:
    """The images of a folder or a tar, with the labels of :class:`ClassNamer`.

    Args:
        archive: folder with one of images, class folders or class tars; or a tar (or tar.gz) of
            images, or of such tars (``ILSVRC2012_img_train.tar``).
        skip: is told of everything that is passed by.

    Raises:
        DataError: here or while the images are read; names the file, what is wrong, the remedy.
    """
    namer = ClassNamer()
    if not os.path.isdir(archive):
        return ImageSource(_tar_items(tar_members(archive, skip), namer, skip), None)
    names = _names(archive)
    has_tars = any(name.endswith(_TAR) for name in names)
    return ImageSource(_folder_items(archive, names, namer, skip), None if has_tars else len(names))


def _names(folder: str) -> list[str]:
    """Images and tars below a folder, sorted, with ``/``; linked folders are entered once."""
    names: list[str] = []
    entered: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        entered.add(os.path.realpath(place))
        paths = {name: os.path.realpath(os.path.join(place, name)) for name in folders}
        folders[:] = [name for name in paths if name[0] != "." and paths[name] not in entered]
        prefix = os.path.relpath(place, folder).replace(os.sep, "/")
        names += [file if prefix == "." else f"{prefix}/{file}" for file in files if _is_ours(file)]
    return sorted(names)


def _is_ours(file: str) -> bool:
    return file[0] != "." and file.lower().endswith((*IMAGE_EXTENSIONS, _TAR))


def _folder_items(folder: str, names: list[str], namer: ClassNamer, skip: Skip) -> Iterator[Item]:
    for name in names:
        path = os.path.join(folder, name)
        problem = problem_with_name(name)
        if problem is None and not os.path.isfile(path):
            problem = "is no plain file"
        if problem is not None:
            skip(f"{ascii(path)[:200]} {problem}")
        elif name.endswith(_TAR):
            yield from _class_tar_items(name, tar_members(path, skip), namer, skip)
        else:
            yield _item(name, path, _file_reader(path), namer)


def _tar_items(members: Iterator[Member], namer: ClassNamer, skip: Skip) -> Iterator[Item]:
    for member in members:
        if member.name.endswith(_TAR):
            yield from _class_tar_items(member.name, inner_members(member, skip), namer, skip)
        elif _is_image(member, skip):
            yield _item(member.name, member.where, member.read, namer)


def _class_tar_items(
    name: str, members: Iterator[Member], namer: ClassNamer, skip: Skip
) -> Iterator[Item]:
    class_name = os.path.basename(name).removesuffix(_TAR)
    for member in members:
        if _is_image(member, skip):
            yield _item(member.name, member.where, member.read, namer, class_name)


def _is_image(member: Member, skip: Skip) -> bool:
    file = member.name.rpartition("/")[2]
    if file.startswith("."):  # what file managers leave
        return False
    if not file.lower().endswith(IMAGE_EXTENSIONS):
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


def _file_reader(path: str) -> Callable[[], bytes]:
    def read() -> bytes:
        data = read_up_to(path, MAX_IMAGE_BYTES + 1)
        if len(data) > MAX_IMAGE_BYTES:
            raise DataError(f"{path}: more than {MAX_IMAGE_BYTES} bytes; take it out of the folder")
        return data

    return read
