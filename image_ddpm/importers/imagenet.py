"""ImageNet as people have it: class folders, a tar of images, or the official tar of class tars.

Bytes are handed on as they are; whether they are an image is found out by whoever stores them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from image_ddpm.importers.archives import Member, inner_members, tar_members
from image_ddpm.importers.items import MAX_IMAGE_BYTES, ClassNamer, ImageSource, Item, Skip
from utils.files.atomic import read_up_to
from utils.flags.groups import ERROR, SKIP
from utils.images.files import IMAGE_EXTENSIONS
from utils.images.folder import is_hidden, list_files
from utils.process.errors import DataError

_TAR = ".tar"


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
