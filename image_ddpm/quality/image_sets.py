"""Sets of images to judge: a folder, or an array of samples; and which image belongs to which."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from utils.flags.groups import OrientationFlags
from utils.images.decode import BadImageError
from utils.images.files import image_size, read_image, with_extension
from utils.images.folder import scan
from utils.images.notes import ImageNotes, note_of
from utils.process.errors import DataError
from utils.seeds import stable_seed
from utils.untrusted.pickles import problem_with_letters

Picture = NDArray[np.uint8]
Log = Callable[[str], None]


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order; `flag` and `path` name them in messages.

    A folder has `names`, relative to it; an `array`, (N, H, W, C) uint8, C 1 or 3, has none.
    `indices` are those that count, ascending.
    """

    flag: str
    path: str
    names: Sequence[str] | None
    array: Picture | None
    indices: NDArray[np.int64]
    apply_orientation: bool = False

    def __len__(self) -> int:
        return len(self.indices)

    def picture(self, k: int) -> Picture:
        """The k-th image that counts, (H, W, 3); DataError names a file that is no whole image."""
        return self._read(k)[0]

    def _read(self, k: int) -> tuple[Picture, str]:
        if self.array is not None:
            return np.broadcast_to(self.array[self.indices[k]], (*self.array.shape[1:3], 3)), ""
        is_turned = self.apply_orientation
        try:
            image, facts = read_image(self._file(k), apply_orientation=is_turned)
        except BadImageError as error:
            raise DataError(f"{self.flag}: {error}") from None
        return np.asarray(image), note_of(self.label(k), facts, 0, OrientationFlags(is_turned))

    def size(self, k: int) -> tuple[int, int]:
        """(width, height) of the k-th image that counts; only the header of a file is read."""
        if self.array is not None:
            return self.array.shape[2], self.array.shape[1]
        try:
            return image_size(self._file(k), apply_orientation=self.apply_orientation)
        except BadImageError as error:
            raise DataError(f"{self.flag}: {error}") from None

    def _file(self, k: int) -> str:
        assert self.names is not None
        return os.path.join(self.path, self.names[int(self.indices[k])])

    def label(self, k: int) -> str:
        """What messages call the k-th image."""
        name = self.names[int(self.indices[k])] if self.names else f"image {self.indices[k]}"
        return f"{self.flag} {self.path}: {name}"

    def batches(self, batch_size: int, log: Log = print) -> Iterator[list[Picture]]:
        """All that count, in order; what does not reach the pixels of files is counted and said."""
        notes = ImageNotes(log, 0, len(self))
        for start in range(0, len(self), batch_size):
            read = [self._read(k) for k in range(start, min(start + batch_size, len(self)))]
            notes.add(note for _, note in read)
            yield [picture for picture, _ in read]


def folder_set(
    flag: str,
    path: str,
    num_images: int,
    seed: int,
    *,
    apply_orientation: bool = False,
    log: Log = print,
) -> ImageSet:
    """The images of a folder, which may be remote, sorted by name without extension; all levels."""
    # no name is taken out of a list here: whatever can be written down will do
    found = scan(path, log, flag, problem_with=problem_with_letters)
    # with the extension that scan leaves off: a.b.JPEG and a.b.png are the pair a.b
    names = sorted(map(with_extension, found), key=os.path.splitext)
    chosen = choose(len(names), num_images, seed)
    return ImageSet(flag, path, names, None, chosen, apply_orientation)


def array_set(
    flag: str, path: str, array: NDArray[np.generic], num_images: int, seed: int
) -> ImageSet:
    """The images of an array; DataError unless it is uint8, (N, H, W, 3 or 1), and not empty."""
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[3] not in (1, 3) or not array.size:
        raise DataError(
            f"{flag} {path}: arr_0 is {array.dtype} {array.shape}; samples are uint8 (N, H, W, 3) "
            "or (N, H, W, 1) grey levels, features are float (N, D)"
        )
    images = array.view(np.uint8)
    return ImageSet(flag, path, None, images, choose(len(images), num_images, seed))


def choose(num_items: int, num_chosen: int, seed: int) -> NDArray[np.int64]:
    """Ascending indices of ``num_chosen`` (0: all) items; a function of both numbers and the seed.

    So two sets of one length keep their pairs.
    """
    if not 0 < num_chosen < num_items:
        return np.arange(num_items)
    rng = np.random.default_rng(stable_seed(seed, "num_images"))
    return np.sort(rng.permutation(num_items)[:num_chosen])


def require_pairs(reference: ImageSet, samples: ImageSet) -> None:
    """Checks that image k of both sets shows the same: kinds, names and numbers (DataError)."""
    remedy = "give two folders of equal names or two .npz of equal length, or leave --paired out"
    if (reference.names is None) != (samples.names is None):
        raise DataError(
            f"--paired True: {reference.path} and {samples.path} are a folder and an array, whose "
            f"pairs nobody knows; {remedy}"
        )
    if reference.names is None or samples.names is None:
        lengths = [len(part.array) for part in (reference, samples) if part.array is not None]
        if lengths[0] != lengths[1]:
            raise DataError(
                f"--paired True: --reference has {lengths[0]} images, --samples {lengths[1]}; "
                f"{remedy}"
            )
        return
    stems = [
        Counter(os.path.splitext(name)[0] for name in names)
        for names in (reference.names, samples.names)
    ]
    lonely = sorted(key for key in stems[0] | stems[1] if (stems[0][key], stems[1][key]) != (1, 1))
    if lonely:
        raise DataError(
            f"--paired True: {len(lonely)} names have not one image in each folder: "
            f"{', '.join(lonely[:5])}{' …' if len(lonely) > 5 else ''}; {remedy}"
        )
