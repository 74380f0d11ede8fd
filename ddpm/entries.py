"""Which images to train on, and what their labels are: of an info dict, or of a folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ddpm.info_dict import listed_entries
from ddpm.stored_flags import (
    OtherClasses,
    Start,
    check_labels,
    listed_classes,
    require_known_labels,
)
from utils.files.records import shown
from utils.flags.groups import AUTO, FOLDER, NAME
from utils.images.folder import class_in_folder, class_in_name, other_reading, scan
from utils.images.listing import ImageList
from utils.process.errors import CheckpointError, DataError

Log = Callable[[str], None]


class LabelFlags(Protocol):
    """Where images and their labels come from; an info dict of "" is the folder."""

    @property
    def data_dir(self) -> str:
        """The folder of the images."""

    @property
    def data_info_dict_path(self) -> str:
        """The info dict; empty: all images below the folder."""

    @property
    def label_from(self) -> str:
        """`name`, `folder`, or `auto`."""

    @property
    def on_bad_image(self) -> str:
        """`error` or `skip`."""


@dataclass(frozen=True)
class FolderLabels:
    """All images below a folder, labelled as their names show."""

    data_dir: str
    on_bad_image: str
    data_info_dict_path: str = ""
    label_from: str = AUTO


def load_entries(
    flags: LabelFlags,
    num_classes: int | None,
    log: Log,
    known: Sequence[str] = (),
    folder_flag: str = "--data_dir",
) -> ImageList:
    """All images with their labels: of the info dict, or of the folder.

    A folder's labels are the places of its sorted class names; where the network's own class names
    are `known`, by label, those decide, so that a folder that lacks a class gives no image
    another's label. Without classes (`num_classes` None) labels do not matter. `folder_flag` is the
    one that named the folder, for messages.

    Raises:
        DataError: for missing images, names without a label, or more classes than the network has;
            `OtherClasses` for those that it knows by another label or not at all.
    """
    if flags.data_info_dict_path:
        entries = listed_entries(flags.data_info_dict_path, flags.data_dir)
        if num_classes is not None:
            require_known_labels(entries, known, flags.data_info_dict_path)
    else:
        entries = _folder_entries(flags, num_classes, log, known, folder_flag)
    check_labels(entries, num_classes)
    num_found = len({entry.y for entry in entries.first_of_classes()})
    classes = "" if num_classes is None else f", {num_found} of {num_classes} classes"
    log(f"{len(entries)} images{classes}")
    if num_classes is not None and num_found < num_classes and not known:
        log(
            "warning: labels are places among the sorted names of the classes that are here; if "
            "some are missing, give the same --data_info_dict_path everywhere"
        )
    return entries


def load_train_entries(
    flags: LabelFlags, num_classes: int | None, log: Log, start: Start
) -> ImageList:
    """As `load_entries`, of a training: labels are those of the checkpoint it starts from.

    A new run from its weights may have other classes; its labels are its own then. Raises
    CheckpointError for other classes than those of the run to resume.
    """
    try:
        return load_entries(flags, num_classes, log, start.class_names)
    except OtherClasses as error:
        if not start.is_new_run:
            raise CheckpointError(
                f"{start.path} was trained on other classes: {error}; give the images of these, or "
                f"start a new run with --init_from {start.path} and another --model_save_dir"
            ) from None
        log(f"notice: labels are not those of {start.path}: {error}")
    return load_entries(flags, num_classes, log)


def _folder_entries(
    flags: LabelFlags, num_classes: int | None, log: Log, known: Sequence[str], folder_flag: str
) -> ImageList:
    names = scan(flags.data_dir, log, folder_flag, flags.on_bad_image)
    if num_classes is None:
        return ImageList.labelled(names, [""] * len(names), {"": 0})
    source = flags.label_from
    if source == AUTO:
        source = _source_of_labels(names)
    classes = [_class_of(name, source, flags.data_dir) for name in names]
    if flags.label_from == AUTO and source == NAME:
        for line in other_reading(names, classes, NAME):
            log(line)
    labels = {key: y for y, key in enumerate(known or sorted(set(classes))) if key}
    unknown = sorted(set(classes) - set(labels))
    if unknown:
        raise OtherClasses(
            f"{folder_flag} {flags.data_dir} holds classes that the network was not trained on: "
            f"{', '.join(map(shown, unknown[:5]))}; it knows {listed_classes(known)}"
        )
    return ImageList.labelled(names, classes, labels)


def _source_of_labels(names: Sequence[str]) -> str:
    prefixes = {class_in_name(name) for name in names}
    if "" in prefixes:
        return FOLDER
    folders = {name.rpartition("/")[0] for name in names}
    # img_1.png, img_2.png in class folders: such names say nothing
    return FOLDER if len(prefixes) == 1 and len(folders) > 1 and "" not in folders else NAME


def _class_of(name: str, source: str, data_dir: str) -> str:
    found = class_in_folder(name) if source == FOLDER else class_in_name(name)
    if found:
        return found
    raise DataError(
        f"{name} in {data_dir} shows no class ({source}): name files class_number.png, put them "
        "into class folders, give --data_info_dict_path, or use --class_cond False"
    )
