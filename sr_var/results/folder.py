"""Result folders of the test scripts: what is already done, and files that are whole or not there.

Layout: `<output_dir>/<image name>/<file>` (docs/file_formats.md).
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from sr_var.degradation import bilinear_upsample
from sr_var.values import GREY_LEVELS, Units, as_rgb
from utils import dist_util
from utils.files.atomic import JsonObject, atomic_write, write_json_atomic
from utils.files.records import read_record
from utils.files.storage import make_folder
from utils.flags.groups import Reading
from utils.images.files import BadImageError, open_image, safe_join
from utils.images.listing import Entry, ImageList
from utils.images.pixels import image_to_255, image_to_bytes, pictured, save_image, to_hwc
from utils.loops.portable import weights_digest
from utils.metrics import WHITE
from utils.process.errors import DataError

LOW_RES_FILE, SAMPLES_FOLDER = "low_res.png", "high_res_samples"
# what the verification adds to a folder of samples: their mean as a picture, and their variance
OF_VERIFICATION = ("high_res_mean.png", "high_res_var.pkl")
_SAMPLE_NAME = re.compile(r"sample_(0|[1-9][0-9]{0,17})\.png")
Item = TypeVar("Item")
Array = npt.NDArray[np.floating[Any]]
# grey levels on average; rounding makes a quarter, other versions of the JPEG decoder about as much
_LARGEST_DIFFERENCE_255 = 1.5
# so many images are looked at before anything is done: another data set differs everywhere
NUM_LOOKED_AT = 16


def sample_path(folder: str, index: int) -> str:
    """`high_res_samples/sample_<i>.png`."""
    return os.path.join(folder, SAMPLES_FOLDER, f"sample_{index}.png")


def pictures_in(folder: str) -> set[int]:
    """The indices of the samples whose pictures are there, by one look into the folder."""
    found = set()
    with (
        contextlib.suppress(FileNotFoundError, NotADirectoryError),
        os.scandir(os.path.join(folder, SAMPLES_FOLDER)) as entries,
    ):
        for entry in entries:
            match = _SAMPLE_NAME.fullmatch(entry.name)
            if match and entry.is_file():  # no link to nothing
                found.add(int(match[1]))
    return found


def epistemic_files(step: int) -> tuple[str, str, str]:
    """The files of the variance between the mean nets of an ensemble, in writing order."""
    of_std = f"high_res_epistemic_std_{step}"
    return f"{of_std}.png", f"{of_std}.npy", f"high_res_epistemic_var_{step}.pkl"


def is_known_input(path: str, low_res_255: Array) -> bool:
    """Whether the low-res image beside results is there; then it must be today's (h, w, C).

    Raises:
        DataError: if it is of another image or crop; names the picture, both sides, the remedy.
    """
    try:
        stored = np.asarray(open_image(path), np.float64)
        low_res_255 = np.clip(as_rgb(low_res_255), 0, WHITE)  # as the picture of noise is
    except (FileNotFoundError, NotADirectoryError, BadImageError):
        return False
    problem = difference(stored, low_res_255)
    if problem:
        raise DataError(
            f"{path}: this low-res image {problem}, so the results beside it are of another image "
            "or crop; give the --data_dir and the sizes that they were made with, or the folder of "
            "results of this data"
        )
    return True


def difference(stored: Array, today: Array) -> str:
    """How a stored low-res image is not today's, both (h, w, 3) grey levels; empty if it is."""
    if stored.shape != today.shape:
        (height, width, _), (new_height, new_width, _) = stored.shape, today.shape
        return f"is {width}×{height}, the one of --data_dir is {new_width}×{new_height}"
    mean = float(np.abs(stored - today).mean())
    if mean <= _LARGEST_DIFFERENCE_255:
        return ""
    return f"differs from the one of --data_dir by {mean:.1f} grey levels on average"


def spread(items: Sequence[Item]) -> list[Item]:
    """A few of the items, from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(len(items), NUM_LOOKED_AT)).astype(int)
    return [items[place] for place in places]


# kinds of networks whose results have the same names
_SAME_NAMES = MappingProxyType(
    {"mean": ("baseline",), "var": ("baseline",), "baseline": ("mean", "var"), "functional": ()}
)
# of a record of results: whether they are given the class, too; samplers call it the same
CLASS_KEY, LABELS_KEY = "class_cond", "labels"
# likewise what the networks see of an image, how many times smaller it is, and the seed of draws
SEEN_KEYS = ("degradation", "degradation_factor", "degradation_seed")
# and what they were trained on, where that is another degradation (`--test_degradation`)
TRAINED_KEY = "trained_degradation"
# of the settings of samples and of calibrations: that other degradation, where it is another
SHIFT_KEY = "test_degradation"
# items of a training batch that are shown in TensorBoard
PICTURES_IN_STRIP = 4
_SHOWN_DIGITS = 12
# of results whose record does not say how images were read
AS_BEFORE = Reading()
_REMEDY = "give another --output_dir, or delete it to have them removed and made again"


class ResultFolder:
    """Results of one network (kind, step) for many images.

    A stamp remembers the checkpoint that they come from: results of the same checkpoint are kept
    and not computed again, results of another one are removed at the start, which is said.

    `kind` is `mean`, `var`, `baseline`, or `functional_` and which. `file_names` make an image
    done, in writing order; those of this network contain `step`. The results depend on the
    checkpoints `model_paths`, that of the network first. `has_own_inputs`: whether a test of this
    project has been here before; `step` as it was given. `class_cond`: whether the network is told
    the class, which `pending` writes down, as it does what is `seen` of an image (`View.record`).
    `image_channels`: of the image that X begins with; None: as many as results have. `hidden`: as
    `View.hidden`.
    """

    class_cond = False
    image_channels: int | None = None
    hidden: Callable[[Sequence[str]], torch.Tensor | None]

    def __init__(
        self,
        output_dir: str,
        kind: str,
        step: int,
        file_names: Sequence[str],
        model_paths: Sequence[str],
        reading: Reading = AS_BEFORE,
        units: Units = GREY_LEVELS,
    ) -> None:
        self.output_dir, self.file_names = output_dir, tuple(file_names)
        self.units = units
        self._kind = kind
        # the others (the low-res image) are the same for every checkpoint
        own = [file for file in file_names if f"_{step}." in file]
        # what an earlier run was asked for, this one perhaps not
        own += [f"{file[:-4]}.npy" for file in own if file.endswith(f"_var_{step}.pkl")]
        # a single net's results shall not stand beside what an ensemble has left
        self._own_files = frozenset([*own, *(epistemic_files(step) if kind == "mean" else ())])
        self.step = step
        self._stamp_path = stamp_path(output_dir, kind, step)
        self.seconds_path = seconds_path(output_dir, kind, step)
        self._other_stamps = [
            stamp_path(output_dir, other, step) for other in _SAME_NAMES.get(kind, ())
        ]
        self.model_paths = tuple(model_paths)
        # as the run finds it; low-res images of other tools are not looked at
        stamps = (stamp_path(glob.escape(output_dir), one, "*") for one in _SAME_NAMES)
        self.has_own_inputs = any(map(glob.glob, stamps))
        self._reading = reading
        self.seen: JsonObject = {}
        self.hidden = lambda names: None

    def path(self, name: str, file_name: str) -> str:
        """Path of a result; its folder is made. A name that leads out of it is a ValueError."""
        folder = safe_join(self.output_dir, name)
        make_folder(folder)
        return os.path.join(folder, file_name)

    def pending(self, entries: Sequence[Entry], log: Callable[[str], None] = print) -> ImageList:
        """The images that are still to do; all ranks get the same answer.

        The log is told what was removed, and what else was made on it.

        Raises:
            DataError: if the folder holds another kind of network's results of the same names, or
                those of images that were read another way, or its stamp cannot be read; nothing is
                removed.
            StorageError: if no folder can be there.
        """
        for path in self._other_stamps:
            if os.path.exists(path):
                raise DataError(
                    f"--output_dir {self.output_dir} holds results of the same names by another "
                    f"kind of network ({os.path.basename(path)}); give another folder"
                )
        models = [weights_digest(path) for path in self.model_paths]
        stored = self.require_same_reading()
        is_same = stored.models == models and stored.reading == self._reading

        def is_done(name: str) -> bool:
            paths = (os.path.join(safe_join(self.output_dir, name), f) for f in self.file_names)
            return all(map(os.path.exists, paths))

        # results of a net that is told the class are of a label, too
        labels = {entry.name: entry.y for entry in entries} if self.class_cond else {}
        known = stored.labels if is_same else {}
        relabelled = {name: y for name, y in labels.items() if known.get(name, y) != y}
        images = ImageList.of(entries)
        if is_same:
            images = images.keep(lambda name: name in relabelled or not is_done(name))
        dist_util.barrier()  # nobody writes before everybody has looked
        if (not is_same or labels.items() - known.items()) and dist_util.is_main():
            make_folder(self.output_dir, "--output_dir")
            if is_same:
                self._remove_relabelled([*relabelled], log)
            else:
                self._remove_results(stored.models, models, log)
            record = {"models": models, **self._reading.record(), **self.units.record()}
            record |= self.seen
            if self.class_cond:
                record |= {CLASS_KEY: True, LABELS_KEY: {**known, **labels}}
            write_json_atomic(self._stamp_path, record)
        dist_util.barrier()
        return images

    def require_same_reading(self) -> Stamp:
        """Refuse results of images that were read another way; return what the folder says."""
        stored = read_stamp(self._stamp_path, _REMEDY)
        if stored.models and stored.reading != self._reading:
            raise DataError(
                f"--output_dir {self.output_dir} holds results of images that were read with "
                f"{stored.reading}, here it is {self._reading}; give the same, or another folder"
            )
        if stored.models and stored.seen != self.seen and _seed(stored.seen) != _seed(self.seen):
            raise DataError(
                f"--output_dir {self.output_dir} holds results of images whose degradation was "
                f"drawn with --seed {_seed(stored.seen)}, here it is {_seed(self.seen)}; give the "
                "same, or another folder"
            )
        self._require_same_degradation(stored)
        return stored

    def _require_same_degradation(self, stored: Stamp) -> None:
        """Refuse results of the same networks on another degradation; of others they go."""
        if stored.seen == self.seen or not stored.models:
            return
        if TRAINED_KEY in {**stored.seen, **self.seen} and stored.models == [
            weights_digest(path) for path in self.model_paths
        ]:
            there, here = (_degradation(seen) for seen in (stored.seen, self.seen))
            raise DataError(
                f"--output_dir {self.output_dir} holds results of these networks on {there}, here "
                f"it is {here}; give another folder"
            )

    def save_low_res(self, name: str, low_res: torch.Tensor, size: Sequence[int]) -> None:
        """Write the image that X, (C + extra, h, w) in [-1, 1], begins with, bilinear at `size`.

        Raises:
            DataError: if other results in the folder are of another image of this name.
        """
        image = low_res[: self.image_channels or self.units.num_channels]
        upsampled = bilinear_upsample(image[None].float(), size)[0]
        if not self.require_same_input(name, upsampled):
            save_image(self.path(name, LOW_RES_FILE), upsampled)

    def require_same_input(self, name: str, low_res_up: torch.Tensor) -> bool:
        """As `is_known_input`, in a folder that this project's tests have written to."""
        path = os.path.join(safe_join(self.output_dir, name), LOW_RES_FILE)
        low_res_255 = to_hwc(image_to_255(low_res_up))
        return self.has_own_inputs and is_known_input(path, low_res_255)

    def _remove_relabelled(self, names: Sequence[str], log: Callable[[str], None]) -> None:
        """Remove this network's results of images that had another label."""
        for name in names:
            for file in self._own_files:
                with contextlib.suppress(FileNotFoundError):
                    os.remove(os.path.join(safe_join(self.output_dir, name), file))
        if names:
            log(f"notice: {len(names)} images have another label than before, as {names[0]}")

    def _remove_results(
        self, old: Sequence[str], new: Sequence[str], log: Callable[[str], None]
    ) -> None:
        """Remove what other checkpoints (`old`; empty: unknown ones) have left, and say so."""
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.seconds_path)
        folders = set()
        # of all images, listed or not: the stamp speaks for the whole folder
        for folder, _, files in os.walk(self.output_dir, onerror=_refuse):
            for file in self._own_files.intersection(files):
                os.remove(os.path.join(folder, file))
                folders.add(folder)
        if not folders:
            return
        origin = f"of the checkpoint {short(old)}" if old else "of an unknown checkpoint"
        log(
            f"notice: removed the results of {len(folders)} images in {self.output_dir} that were "
            f"{origin}; those of {self.model_paths[0]} ({short(new)}) take their place"
        )
        steps = self._steps_made_on(old[0]) if old and self._kind == "mean" else []
        if steps:
            log(
                f"warning: the variances of step {', '.join(steps)} in {self.output_dir} were made "
                f"on the removed means; run sr_var_test.py again with --mean_model_path "
                f"{self.model_paths[0]}, the verification refuses them as they are"
            )

    def _steps_made_on(self, mean_digest: str) -> list[str]:
        """Steps of the variance nets whose results here were made on this mean net's."""
        found = []
        for path in sorted(glob.glob(stamp_path(glob.escape(self.output_dir), "var", "*"))):
            with contextlib.suppress(DataError):  # of a damaged stamp, its reader tells
                if mean_digest in read_stamp(path, "").models[1:]:
                    found.append(os.path.basename(path).split("_")[1].removesuffix(".json"))
        return found


def _refuse(error: OSError) -> None:
    # results in a folder that cannot be listed would pass for those of this checkpoint
    raise error


@dataclass(frozen=True)
class Stamp:
    """What results come from.

    Attributes:
        models: the sha256 of each checkpoint; empty if the folder does not say.
        reading: how the images were read.
        values: what `Units.of_record` reads.
        class_cond: whether the networks were told the class.
        labels: of the images, where they were.
        seen: what `View.record` gave.
    """

    models: list[str]
    reading: Reading = AS_BEFORE
    values: object = None
    class_cond: bool = False
    labels: Mapping[str, int] = field(default_factory=dict)
    seen: Mapping[str, object] = field(default_factory=dict)


def read_stamp(path: str, remedy: str) -> Stamp:
    """What results come from, by the file of `stamp_path`.

    Raises:
        DataError: if it is damaged, which says nothing about the results; names the remedy.
    """
    unknown = "which checkpoint the results beside it come from is not known"
    try:
        return read_record(path, f"{unknown}; {remedy}", _stamp)
    except (FileNotFoundError, NotADirectoryError):
        return Stamp([])


def _stamp(content: Mapping[str, object]) -> Stamp:
    models = content["models"]
    if not isinstance(models, list) or not all(isinstance(one, str) for one in models):
        raise ValueError("no record of checkpoints")
    is_told, labels = content.get(CLASS_KEY) is True, content.get(LABELS_KEY, {})
    if not isinstance(labels, dict) or not all(type(y) is int for y in labels.values()):
        raise ValueError("no record of labels")
    seen = {name: content[name] for name in (*SEEN_KEYS, TRAINED_KEY) if name in content}
    return Stamp(models, Reading.parse(content), content.get("values"), is_told, labels, seen)


def _seed(seen: Mapping[str, object]) -> object:
    """Of what is drawn; None where nothing is."""
    return seen.get(SEEN_KEYS[-1])


def _degradation(seen: Mapping[str, object]) -> str:
    name = "--test_degradation" if TRAINED_KEY in seen else "--degradation"
    return f"{name} {seen.get(SEEN_KEYS[0], 'area')}"


def short(models: Sequence[str]) -> str:
    """Digest of checkpoints for a message."""
    return " ".join(digest[:_SHOWN_DIGITS] for digest in models)


def stamp_path(output_dir: str, kind: str, step: int | str) -> str:
    """The record of the checkpoints that a network's results come from."""
    return os.path.join(output_dir, f".{kind}_{step}.json")


def seconds_path(output_dir: str, kind: str, step: int) -> str:
    """The record (`utils.machine.cost`) of what a network's passes took."""
    return os.path.join(output_dir, f".seconds_{kind}_{step}.json")


def to_grey_bytes(image_255: Array) -> npt.NDArray[np.uint8]:
    """Grey levels in float to the nearest uint8 level, clipped."""
    return np.clip(np.rint(image_255), 0, WHITE).astype(np.uint8)


def save_array(path: str, array: npt.NDArray[Any]) -> None:
    """Write an array as `.npy`."""
    with atomic_write(path) as file:
        np.save(file, array, allow_pickle=False)


def strip(*images: torch.Tensor) -> npt.NDArray[np.uint8]:
    """NCHW images in [-1, 1] as one HWC uint8 picture: a row an item, a column an argument.

    Smaller images are upsampled bilinearly to the size of the last argument.
    """
    size = images[-1].shape[2:]
    images = tuple(pictured(bilinear_upsample(image, size), 1) for image in images)
    rows = [torch.cat([image[i] for image in images], dim=2) for i in range(len(images[0]))]
    return to_hwc(image_to_bytes(torch.cat(rows, dim=1)))
