"""Files that belong to an image by its name: its truth, its masks, the further images of X."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sr_var.degrade.language import Degradation
from sr_var.flags.predict import PredictFlags
from sr_var.predict.conditions import ALSO, MASK, Beside, complete, missing_of, require_fit
from sr_var.predict.images import (
    REMEDY,
    Bools,
    InputFile,
    LowRes,
    Reading,
    content_of,
    digest_of,
    find_inputs,
    is_bright,
    read_low_res,
)
from sr_var.values import Units
from utils.files.atomic import JsonObject
from utils.images.crops.measured import listed
from utils.images.files import BadImageError, naming
from utils.images.native import decode_native, is_npy
from utils.process.errors import DataError
from utils.untrusted.arrays import parse_npy

Log = Callable[[str], None]
TRUTH = "--truth"
# which file belongs to the image of a name; None where there is none
PathOf = Callable[[str], str | None]


def find_partners(place: str, flag: str, log: Log) -> PathOf:
    """Which file of a place belongs to the image of a name; `flag` named the place.

    A file is that of every name; in a folder it has the name of the image, with any ending.
    """
    found = find_inputs(place, log, flag)
    if len(found) == 1 and found[0].path == place:
        return lambda name: place
    return {one.name: one.path for one in found}.get


def require_one_each(place: str, flag: str, inputs: Sequence[InputFile], source: str) -> None:
    """Refuse (DataError) one file beside several images of `--input`."""
    if len(inputs) > 1 and not os.path.isdir(place):
        raise DataError(
            f"{flag} {place} is one image, --input {source} has {len(inputs)}; name a folder of "
            "images of the same names"
        )


@dataclass(frozen=True)
class InputFiles:
    """The images of `--input` with what the networks see beside them, as the flags name it.

    `units` are those of X.
    """

    flags: PredictFlags
    units: Units
    degradation: Degradation | None
    masks: tuple[PathOf, ...]
    also: tuple[PathOf, ...]

    @classmethod
    def find(
        cls,
        flags: PredictFlags,
        inputs: Sequence[InputFile],
        units: Units,
        degradation: Degradation | None,
        log: Log,
    ) -> InputFiles:
        """Look for all files.

        Raises:
            ValueError: the networks see more, or less, than the flags name.
            DataError: an image has no partner.
        """
        require_fit(
            degradation,
            num_images=len(flags.also_places),
            num_masks=len(flags.mask_places),
            levels=flags.levels,
        )
        found: dict[str, list[PathOf]] = {MASK: [], ALSO: []}
        for flag, places in ((MASK, flags.mask_places), (ALSO, flags.also_places)):
            for place in places:
                if flag == ALSO:
                    require_one_each(place, flag, inputs, flags.input)
                partner = find_partners(place, flag, log)
                alone = [one.name for one in inputs if partner(one.name) is None]
                if alone:
                    raise DataError(
                        f"{flag} {place}: {len(alone)} of {len(inputs)} images have none of their "
                        f"name ({listed(alone)}); add them, or take these out of --input"
                    )
                found[flag].append(partner)
        return cls(flags, units, degradation, tuple(found[MASK]), tuple(found[ALSO]))

    def digests(self, one: InputFile) -> JsonObject:
        """The sha256 of an image's file and of those beside it, by their keys in its record."""
        found: JsonObject = {"input_sha256": digest_of(one.path)}
        for key, partners in (("mask_sha256", self.masks), ("also_sha256", self.also)):
            if partners:
                found[key] = [digest_of(path) for path in _paths(partners, one)]
        return found

    def read(self, one: InputFile) -> LowRes:
        """The image with all that is beside it.

        Raises:
            BadImageError: a file cannot be used, or has another size.
        """
        turned = self.flags.apply_orientation
        masks = tuple(read_mask_file(path, turned) for path in _paths(self.masks, one))
        images = [
            self._read_file(path, i, masks)
            for i, path in enumerate([one.path, *_paths(self.also, one)])
        ]
        beside = Beside(tuple(images[1:]), masks, self.flags.levels)
        try:
            found = complete(images[0], self.degradation, beside)
        except BadImageError as error:
            raise BadImageError(f"{one.path}: {error}") from None
        if found.seen is None:
            return found
        share = 100 * (1 - found.seen.mean())
        return replace(found, notices=(*found.notices, f"{share:.3g} % of its pixels are hidden"))

    def read_truth(self, path: str, units: Units) -> LowRes:
        """The true image of a file, whole, in units of Y; raises as `read_low_res`."""
        return read_low_res(path, units, Reading(self.flags.apply_orientation, self.flags.page))

    def _read_file(self, path: str, branch: int, masks: tuple[Bools, ...]) -> LowRes:
        """One file of X alone; `branch` says which of its images it is."""
        missing = missing_of(self.degradation, branch, masks)
        reading = Reading(self.flags.apply_orientation, self.flags.page, missing)
        return read_low_res(path, self.units, reading)


def _paths(partners: Sequence[PathOf], one: InputFile) -> list[str]:
    found = (partner(one.name) for partner in partners)
    return [path for path in found if path is not None]


def read_mask_file(path: str, apply_orientation: bool) -> Bools:
    """The mask in a picture, a TIFF or a `.npy` file, (h, w): True where it is bright.

    Raises:
        BadImageError: no whole image, too large, transparent, or of other values.
    """
    return decode_mask(content_of(path), path, apply_orientation)


def decode_mask(data: bytes, name: str, apply_orientation: bool = True) -> Bools:
    """The same of the bytes of a file; errors show `name`."""
    if is_npy(data):  # booleans, too
        with naming(name, REMEDY):
            try:
                array = parse_npy(data)
            except ValueError as error:
                raise BadImageError(f"no whole .npy file ({error})") from None
            return is_bright(array[0] if array.ndim == 3 and len(array) == 1 else array)
    image = decode_native(data, name, REMEDY, apply_orientation=apply_orientation)
    with naming(name, REMEDY):
        if image.alpha is not None and not is_bright(image.alpha).all():
            raise BadImageError("a mask that is transparent in parts: bright means seen, not alpha")
        return is_bright(image.pixels)
