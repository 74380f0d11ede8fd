"""The oracle as ordinary files: the very scripts that run on ImageNet run on it.

Photographs are cut into low-res images; for each, high-res images are drawn from the oracle's law.
Test images get exact samples and exact moments in the layout of a sampler's folder, so that
`sr_var_verification.py` can compare with the truth. The law itself is `oracle.law`. On the class
law there are two such folders: one given X alone, and one given X and the label of the image.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from ddpm.info_dict import make_info
from ddpm.sampling import SETTINGS_FILE
from oracle.law import PHOTO_SCALE, OracleLaw, oracle_law
from sr_var.data.info import ALL_FILE, TEST_FILE, TRAIN_FILE
from sr_var.data.oracle_observed import (
    OBSERVED_FILE,
    SUFFIX,
    Observation,
    read_float_image,
    write_float_image,
)
from sr_var.flags.scripts import OracleDataFlags
from sr_var.results.folder import (
    CLASS_KEY,
    LOW_RES_FILE,
    SAMPLES_FOLDER,
    difference,
    sample_path,
    save_array,
    spread,
)
from sr_var.results.moments import MOMENTS_FILE, TRUTH_FILE, SampleMoments, block_means, save_truth
from utils.files.records import require_same_settings
from utils.files.storage import make_folder
from utils.images.crops.dataset import note_changes
from utils.images.files import BadImageError, open_image, resolve_image_path, safe_join
from utils.images.folder import class_of, scan
from utils.images.pictures import write_picture
from utils.images.pixels import bytes_to_image, image_to_255, image_to_bytes, to_hwc
from utils.machine.threads import chosen_threads
from utils.metrics import HALF_RANGE_255
from utils.process.errors import DataError
from utils.runs.job import working
from utils.script_util import defaults
from utils.seeds import stable_seed
from utils.untrusted.pickles import dump_pickle

IMAGE_FOLDER = "images"
CALIBRATION_FILE = "calibration_data_info.pkl"
TRAIN, TEST, CALIBRATION = "train", "test", "calibration"
_EVERY_TENTH = 10
Uint8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class OracleCrop:
    """One low-res image: the photograph that it is cut from, and the names of what it becomes.

    `side` is `train`, `test` or `calibration`; test images alone have exact samples and moments.
    """

    photo: str
    index: int
    side: str
    names: tuple[str, ...]

    @property
    def is_test(self) -> bool:
        """Whether networks are judged on it."""
        return self.side == TEST


def plan_crops(photos: list[str], flags: OracleDataFlags, side: str) -> list[OracleCrop]:
    """Which low-res images there will be: the photographs in turn, each at another place.

    Training images have `num_draws` draws each, others one.
    """
    num_draws = flags.num_draws if side == TRAIN else 1
    crops = []
    for index in range(getattr(flags, f"num_{side}_crops")):
        photo = photos[index % len(photos)]
        stem = os.path.splitext(photo.rpartition("/")[2])[0]
        prefix = f"{side}/{_class_of_photo(photo, flags)}/{stem}_{index:06d}"
        suffix = ".png" if Observation.parse(flags.degradation, flags.factor) is None else SUFFIX
        names = tuple(f"{prefix}_{draw}{suffix}" for draw in range(num_draws))
        crops.append(OracleCrop(photo, index, side, names))
    return crops


def split_photos(flags: OracleDataFlags, log: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """(training, test) photographs of `data_dir`; none is in both.

    Raises:
        DataError: if one of the two would be empty.
    """
    photos = scan(flags.data_dir, log, on_bad_image=flags.on_bad_image)
    has_folder = bool(flags.test_folder)
    test = _below(flags.test_folder, photos) if has_folder else photos[::_EVERY_TENTH]
    train = sorted(set(_below(flags.train_folder, photos)) - set(test))
    if flags.train_folder and not train:
        raise DataError(
            f"--train_folder {flags.train_folder} of --data_dir {flags.data_dir} holds no "
            "photograph for training; name a folder of --data_dir that does"
        )
    if not train or not test:
        raise DataError(
            f"{len(train)} photographs of --data_dir {flags.data_dir} would be left for training "
            f"and {len(test)} for testing; see --test_folder {flags.test_folder!r}"
        )
    return train, test


def _below(folder: str, photos: list[str]) -> list[str]:
    """The photographs below a folder; all of them if it is empty."""
    prefix = folder.strip("/") + "/" if folder else ""
    return [name for name in photos if name.startswith(prefix)]


def cut_low_res(crop: OracleCrop, flags: OracleDataFlags) -> Uint8Array:
    """The low-res image, (h, h, 3): a piece of the photograph at half its contrast.

    Rounded to grey levels, so that the picture of it is exactly the image the law is given. A
    photograph that is smaller than the piece is a DataError, a damaged one a BadImageError.
    """
    path = resolve_image_path(flags.data_dir, crop.photo)
    photo = np.asarray(open_image(path, apply_orientation=flags.apply_orientation))
    size, (height, width) = flags.small_size, photo.shape[:2]
    if min(height, width) < size:
        raise DataError(
            f"{crop.photo} is {width}×{height}, smaller than --small_size {size}; leave it out of "
            f"--data_dir {flags.data_dir}"
        )
    rng = np.random.default_rng(stable_seed(flags.seed, "place", crop.names[0]))
    top, left = rng.integers(height - size + 1), rng.integers(width - size + 1)
    piece = photo[top : top + size, left : left + size].astype(np.float64)
    halved = HALF_RANGE_255 + PHOTO_SCALE * (piece - HALF_RANGE_255)
    return np.rint(halved).astype(np.uint8)


def law_of(low_res_uint8: Uint8Array, factor: int) -> OracleLaw:
    """The law of one low-res image (h, h, 3), in float64."""
    image = bytes_to_image(torch.from_numpy(low_res_uint8.transpose(2, 0, 1).copy()))
    return oracle_law(image.double()[None], factor)


def _write_crop(crop: OracleCrop, flags: OracleDataFlags) -> str:
    """Write the files of one low-res image; what is there already is left alone.

    Returns what is wrong with the photograph, "" if nothing is.
    """
    images = os.path.join(flags.output_dir, IMAGE_FOLDER)
    paths = [safe_join(images, name) for name in crop.names]
    folders = [safe_join(one, crop.names[0]) for one in _sample_dirs(flags) if crop.is_test]
    # written last, so it stands for the others
    last = [os.path.join(folder, TRUTH_FILE) for folder in folders]
    if all(map(os.path.exists, [*paths, *last])):
        return ""
    try:
        low_res = cut_low_res(crop, flags)
    except BadImageError as error:
        if flags.on_bad_image == "error":
            raise
        return str(error)
    law = law_of(low_res, flags.factor)
    seen = Observation.parse(flags.degradation, flags.factor)
    for name, path in zip(crop.names, paths, strict=True):
        image = _write_image(path, _draw(_given_class(law, name, flags), flags.seed, name, "image"))
    x = None if seen is None or not folders else seen.see(image, crop.names[0], flags.seed)
    for is_given, folder in enumerate(folders):
        own = _given_class(law, crop.names[0], flags) if is_given else law
        make_folder(os.path.join(folder, SAMPLES_FOLDER))
        write_picture(os.path.join(folder, LOW_RES_FILE), low_res)
        if seen is not None and x is not None:
            own = seen.law_given(own, x)
            save_array(os.path.join(folder, OBSERVED_FILE), to_hwc(x[0]))
        _write_samples(crop.names[0], folder, own, flags, "given class " if is_given else "")
        save_truth(folder, own)
    return ""


def _write_image(path: str, image: torch.Tensor) -> torch.Tensor:
    """Write (1, 3, H, W) as a picture, or in floats where its name says so; what is in the file."""
    make_folder(os.path.dirname(path))
    if path.endswith(SUFFIX):
        return write_float_image(path, image[0])[None]
    rounded = image_to_bytes(image[0])
    write_picture(path, to_hwc(rounded))
    return bytes_to_image(rounded)[None]


def label_of(name: str, flags: OracleDataFlags) -> int:
    """The label of an image on the class law, a function of its name; each as likely."""
    return stable_seed(flags.seed, name, "label") % flags.num_classes


def _given_class(law: OracleLaw, name: str, flags: OracleDataFlags) -> OracleLaw:
    """The law that an image is drawn from: of its label, where there are labels."""
    if not flags.num_classes:
        return law
    return law.given_class(label_of(name, flags), flags.num_classes)


def _sample_dirs(flags: OracleDataFlags) -> list[str]:
    """The folder of samples given X, and on the class law that of samples given the label, too."""
    return [flags.sample_dir, *([flags.given_class_dir] if flags.num_classes else [])]


def _draw(law: OracleLaw, seed: int, name: str, what: str | int) -> torch.Tensor:
    return law.sample(torch.Generator().manual_seed(stable_seed(seed, name, what)))


def _write_samples(
    name: str, folder: str, law: OracleLaw, flags: OracleDataFlags, what: str
) -> None:
    # `what` tells the draws of one folder from those of another
    places = range(flags.num_samples)
    draws = [_draw(law, flags.seed, name, f"{what}{i}" if what else i) for i in places]
    samples = torch.cat(draws)
    grey = np.stack([to_hwc(sample) for sample in image_to_255(samples)])
    moments = SampleMoments().add(grey, range(len(grey)), flags.small_size)
    moments.save(os.path.join(folder, MOMENTS_FILE), is_final=True)
    if flags.sample_pictures:
        for i, sample in enumerate(samples):
            write_picture(sample_path(folder, i), to_hwc(image_to_bytes(sample)))


def write_oracle(flags: OracleDataFlags, log: Callable[[str], None]) -> None:
    """Photographs to images, samples, moments, info dicts.

    Raises:
        StopRequested: if a signal came.
        ValueError: the exact law of `--degradation` is not known.
        DataError: for photographs that are missing, damaged or too small, or if the folders hold
            the files of other settings or photographs.
    """
    seen = Observation.parse(flags.degradation, flags.factor)
    train, test = split_photos(flags, log)
    log(f"{len(train)} photographs for training, {len(test)} for testing")
    crops = plan_crops(train, flags, TRAIN)
    for side in (TEST, CALIBRATION):
        crops += plan_crops(test, flags, side)
    note_changes(sorted({crop.photo for crop in crops}), flags.data_dir, flags, log)
    if flags.dry_run:
        crops = [crops[0], next(crop for crop in crops if crop.is_test)]
        for crop in crops:
            law = law_of(cut_low_res(crop, flags), flags.factor)
            if seen is not None:
                image = _draw(law, flags.seed, crop.names[0], "image")
                law = seen.law_given(law, seen.see(image, crop.names[0], flags.seed))
            std = law.variance.sqrt() * HALF_RANGE_255
            log(f"{crop.names[0]}: std {std.min():.2f} to {std.max():.2f} grey levels")
        return
    _refuse_other_lists(flags.output_dir)
    for i, folder in enumerate((flags.output_dir, *_sample_dirs(flags))):
        settings = _settings(flags)
        if flags.num_classes and i:
            settings[CLASS_KEY] = i > 1
        record = os.path.join(folder, SETTINGS_FILE)
        require_same_settings(record, settings, defaults=defaults(OracleDataFlags))
    for crop in spread(crops):
        _require_same_photo(crop, flags)
    bad = _write_all(crops, flags, log)
    good = [crop for crop in crops if crop.photo not in bad]
    _write_info(good, flags, log)
    places = " and, given the label, ".join(f"{folder}/" for folder in _sample_dirs(flags))
    log(f"images: {flags.output_dir}/{IMAGE_FOLDER}/; samples and moments: {places}")
    if seen is not None:
        log(f"train and test on them with {seen.flags(flags.large_size)}")


def _refuse_other_lists(folder: str) -> None:
    """Refuse to replace info dicts that this script has not written."""
    if os.path.exists(os.path.join(folder, SETTINGS_FILE)):
        return
    for file in (ALL_FILE, TRAIN_FILE, TEST_FILE, CALIBRATION_FILE):
        if os.path.lexists(path := os.path.join(folder, file)):
            raise DataError(f"{path} is of another data set; give another --output_dir")


def _require_same_photo(crop: OracleCrop, flags: OracleDataFlags) -> None:
    """Refuse to add to images that were drawn from other photographs of the same names."""
    path = safe_join(os.path.join(flags.output_dir, IMAGE_FOLDER), crop.names[0])
    try:
        read = read_float_image if path.endswith(SUFFIX) else open_image
        image, low_res = np.asarray(read(path)), cut_low_res(crop, flags)
    except (BadImageError, FileNotFoundError):  # so nothing can be said
        return
    problem = difference(block_means(image, flags.small_size), low_res.astype(np.float64))
    if problem:
        raise DataError(
            f"{path}: its low-res image {problem}: {crop.photo} is another photograph than it was; "
            "give another --output_dir and --sample_dir"
        )


def _write_all(
    crops: list[OracleCrop], flags: OracleDataFlags, log: Callable[[str], None]
) -> set[str]:
    """Damaged photographs."""
    num_threads = chosen_threads(flags.num_threads)
    write, bad = partial(_write_crop, flags=flags), set()
    with (
        ThreadPoolExecutor(num_threads) as pool,
        working(len(crops), "drawing", "crop") as job,
    ):
        for start in range(0, len(crops), 8 * num_threads):
            chunk = crops[start : start + 8 * num_threads]
            for crop, problem in zip(chunk, pool.map(write, chunk), strict=True):
                if problem and crop.photo not in bad:
                    bad.add(crop.photo)
                    log(f"warning: left out: {problem}")
                job.bar.update()
            job.check()
    return bad


def _write_info(
    crops: list[OracleCrop], flags: OracleDataFlags, log: Callable[[str], None]
) -> None:
    class_by_name = {
        name: _class_of_photo(crop.photo, flags) for crop in crops for name in crop.names
    }
    if flags.num_classes:
        class_by_name = {name: f"class_{label_of(name, flags)}" for name in class_by_name}
    files = {TRAIN: TRAIN_FILE, TEST: TEST_FILE, CALIBRATION: CALIBRATION_FILE}
    parts = {ALL_FILE: list(class_by_name)}
    for side, file_name in files.items():
        members = [name for crop in crops if crop.side == side for name in crop.names]
        if members or side != CALIBRATION:
            parts[file_name] = members
    for file_name, members in parts.items():
        path = os.path.join(flags.output_dir, file_name)
        info = make_info(members, class_by_name)
        if flags.num_classes:  # also where some label has no image
            info = {key: {**one, "y": int(key.partition("_")[2])} for key, one in info.items()}
        dump_pickle(info, path)
        log(f"wrote {path}: {len(members)} images")


def _class_of_photo(photo: str, flags: OracleDataFlags) -> str:
    has_split = bool(flags.test_folder or flags.train_folder)
    try:
        return class_of(photo, has_split_folder=has_split)
    except DataError:  # no class is seen: each photograph is one
        return os.path.splitext(os.path.basename(photo))[0]


def _settings(flags: OracleDataFlags) -> dict[str, object]:
    """What decides the content of the files, so that two data sets never share a folder."""
    sizes = ("large_size", "small_size", "num_draws", "num_samples")
    own = (*sizes, "num_classes", "sample_pictures", "seed", "degradation")
    read = ("data_dir", "test_folder", "train_folder", "apply_orientation")
    return {"law": "oracle", **{name: getattr(flags, name) for name in (*own, *read)}}
