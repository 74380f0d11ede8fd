"""Every reader of files that others may have written: a few good files, and how they are read."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import socket
import struct
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from image_ddpm.importers import image_writer
from image_ddpm.importers.cifar_files import read_cifar10
from image_ddpm.importers.data_flags import ImportFlags
from image_ddpm.importers.imagenet_files import read_imagenet
from image_ddpm.parts import read_part
from image_ddpm.quality.feature_files import read_input
from noisy_label import sweep
from noisy_label.idx_files import read_idx
from noisy_label.label_files import load_labels
from noisy_label.mnist_files import load_split
from sr_var.flags import MeanModelFlags
from sr_var.model_args import load_model_args
from sr_var.moments import SampleMoments, load_moments
from sr_var.verify.budget_files import read_budget
from sr_var.verify.cost import num_steps
from sr_var.verify.images import _read_mean
from sr_var.verify.truth import load_truth
from utils.checkpoint import CheckpointStore
from utils.crop_index import CenterCrop, Record, read_index
from utils.image_util import image_size, open_image
from utils.lock_util import _is_dead
from utils.npz_file import read_npz
from utils.safe_pickle import load_args, load_array, load_info_dict
from utils.settings_file import require_same_settings
from utils.time_util import seconds_per_item

_INFO = {"tench": {"y": 0, "file_names": ["n0/a", "b"]}, "shark": {"y": 1, "file_names": []}}
_FLAGS = {"num_heads": 4, "dropout": 0.1, "use_fp16": False, "channel_mult": "", "x": None}
_SETTINGS = {"steps": 4, "solver": "x", "seed": None, "sizes": [1, 2]}
_RNG = np.random.default_rng(0)


@dataclass(frozen=True, repr=False)
class Reader:
    """A reader.

    Attributes:
        file: what the file is called; may be in a folder.
        seeds: good files.
        read: given the path.
        beside: what else is in the folder.
    """

    file: str
    seeds: Sequence[bytes]
    read: Callable[[str], object]
    beside: Mapping[str, bytes] = field(default_factory=dict)

    def names(self, folder: Path) -> tuple[str, str]:
        """What a message may call it: its path or its folder, or its name in there."""
        return str((folder / self.file).parent), os.path.basename(self.file)


def _pickles(*values: object) -> list[bytes]:
    return [pickle.dumps(value, protocol) for value in values for protocol in range(6)]


def _saved(save: Callable[..., object], *args: object, **keywords: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *args, **keywords)
    return buffer.getvalue()


def _npz(**arrays: Any) -> list[bytes]:
    return [_saved(save, **arrays) for save in (np.savez, np.savez_compressed)]


def _torch(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _image(image_format: str, mode: str = "RGB", **options: bool) -> bytes:
    picture = Image.fromarray(_RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)).convert(mode)
    return _saved(picture.save, image_format, **options)


def _tar(files: Mapping[str, bytes], mode: str = "w", form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _moments(path: Path) -> list[bytes]:
    moments = SampleMoments().add(_RNG.uniform(0, 255, (5, 8, 8, 3)), range(5), 4)
    found = []
    for is_final in (False, True):
        moments.save(str(path), is_final=is_final)
        found.append(path.read_bytes())
    return found


def _json(value: object) -> list[bytes]:
    return [json.dumps(value).encode()]


def _all_items(read: Callable[[str, Any], Any], path: str) -> None:
    for item in read(path, lambda message: None).items:
        item.load()


def _checkpoint_set(folder: Path) -> dict[str, bytes]:
    parts = {"opt": {"a": torch.ones(1)}, "model": {"w": torch.ones(2)}}
    manifest: dict[str, Any] = {"flags": {"a": 1}, "versions": {}, "state": {"position": 3}}
    CheckpointStore(str(folder)).save(3, parts, manifest)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _resume(path: str) -> None:
    store = CheckpointStore(os.path.dirname(path), warn=lambda line: None)
    store.resolve("auto")
    store.resolve("3")


def _index(path: str) -> None:
    read_index(os.path.dirname(path), CenterCrop("images", 2))


def _claim(path: str) -> None:
    image_writer._claim_folder(
        ImportFlags(source="digits", output_dir=os.path.dirname(path), image_size=4)
    )


def _cifar() -> dict[str, bytes]:
    batch = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}, 2)
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    meta = pickle.dumps({"label_names": ["a", "b"]}, 2)
    content = {**dict.fromkeys(names, batch), "batches.meta": meta}
    return {f"cifar-10-batches-py/{name}": data for name, data in content.items()}


def _pickle_readers() -> dict[str, Reader]:
    law = np.full(10, 0.1)
    rows = [[(i, law) for i in range(3)], [(i, law.tolist()) for i in range(3)]]
    arrays = (np.ones((2, 2, 3), np.float32), np.asfortranarray(np.eye(3)))
    args = partial(load_model_args, flags_class=MeanModelFlags, log=lambda line: None)
    return {
        "info dict": Reader("info.pkl", _pickles(_INFO), load_info_dict),
        "flags": Reader("args.pkl", _pickles(_FLAGS), load_args),
        "model flags": Reader("mean_model_args.pkl", _pickles(vars(MeanModelFlags())), args),
        "array": Reader("high_res_var_4.pkl", _pickles(*arrays), load_array),
        "noisy labels": Reader("labels.pkl", _pickles(*rows), lambda path: load_labels(path, 3)),
    }


def _array_readers(folder: Path) -> dict[str, Reader]:
    clean = sweep.SweepRun(sweep.CLEAN, 1.0, 0).folder("")
    four = ("mean", "variance", "third_central_moment", "fourth_central_moment")
    truth = _npz(**{key: np.ones((4, 4, 3)) for key in four})
    samples = _npz(arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    statistics = _npz(mean=np.zeros(2), covariance=np.eye(2), count=np.int64(5))
    mean = [_saved(np.save, np.ones((4, 4, 3), np.float32))]
    halves = _npz(training=np.ones((3, 10)), test=np.ones((3, 10)))
    parts = _npz(index=np.arange(3), bpd=np.ones(3))

    def predictions(path: str) -> object:
        return sweep.clean_predictions(0, path.removesuffix(f"{clean}/log_probabilities.npz"))

    return {
        "moments": Reader("moments.npz", _moments(folder / "seed.npz"), load_moments),
        "exact moments": Reader(
            "exact_moments.npz", truth, lambda path: load_truth(os.path.dirname(path), 4)
        ),
        "arrays": Reader("x.npz", samples, lambda path: read_npz(path, path)),
        "features": Reader(
            "x.npz", samples + statistics, lambda path: read_input("--samples", path, 0, 0)
        ),
        "parts": Reader("0_3_x.npz", parts, read_part),
        "predictions": Reader(f"{clean}/log_probabilities.npz", halves, predictions),
        "mean": Reader(
            "high_res_mean_5.npy", mean, lambda path: _read_mean(os.path.dirname(path), 5, 4)
        ),
    }


def _record_readers(folder: Path) -> dict[str, Reader]:
    lines = (Record(0, 5, (3, 4)).line("a"), Record(-1, 0, (3, 4), "cut off").line("b"))
    owner = {"host": socket.gethostname(), "pid": 999_999, "since": "x"}
    process = {"diffusion_steps": 9, "timestep_respacing": "4", "noise_schedule": "linear"}
    seconds = {"seconds": 1.5, "num_items": 4, "device": "cpu"}
    above = os.path.dirname
    checkpoint = _checkpoint_set(folder / "set")
    manifest = checkpoint.pop("ckpt000003.json")
    crops = {"crops.u8": bytes(24)}
    return {
        "manifest": Reader("set/ckpt000003.json", [manifest], _resume, checkpoint),
        "crop index": Reader("cache/index.jsonl", ["".join(lines).encode()], _index, crops),
        "settings": Reader(
            "settings.json", _json(_SETTINGS), lambda path: require_same_settings(path, _SETTINGS)
        ),
        "import": Reader(
            "images/.image_data.json", _json({"source": "digits", "image_size": 4}), _claim
        ),
        "seconds": Reader("seconds.json", _json(seconds), seconds_per_item),
        "steps": Reader(".sampling.json", _json(process), lambda path: num_steps(above(path))),
        "budget": Reader(
            "budget.json", _json({"budget": [{"row": 1}]}), lambda path: read_budget(above(path))
        ),
        "run": Reader("run.json", _json({"accuracy": 0.5}), sweep.read_record),
        "lock": Reader(
            ".writer.lock", _json(owner), lambda path: _is_dead(Path(path).read_text("latin-1"))
        ),
    }


def _image_readers() -> dict[str, Reader]:
    pictures = [_image(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP")]
    pictures += [_image("PNG", mode) for mode in ("P", "L", "1", "RGBA", "I;16")]
    pictures += [_image("JPEG", "CMYK"), _image("JPEG", progressive=True)]
    pictures += [_image("WEBP", lossless=True)]
    files = {"a/n0_1.jpg": pictures[0], f"a/{'x' * 120}.png": pictures[1]}
    tars = [_tar(files), _tar(files, "w:gz"), _tar(files, form=tarfile.PAX_FORMAT)]
    tars.append(_tar({"n01440764.tar": tars[0]}))
    idx = struct.pack(">4B3I", 0, 0, 8, 3, 2, 4, 4) + bytes(range(32))
    digits = _torch((torch.zeros(3, 28, 28, dtype=torch.uint8), torch.arange(3)))
    split = partial(load_split, split="training")
    return {
        "image": Reader("n0_1.JPEG", pictures, open_image),
        "image size": Reader("n0_1.JPEG", pictures, image_size),
        "tar": Reader("x.tar", tars, partial(_all_items, read_imagenet)),
        "CIFAR-10": Reader(
            "c.tar.gz", [_tar(_cifar()), _tar(_cifar(), "w:gz")], partial(_all_items, read_cifar10)
        ),
        "IDX": Reader("x-idx3", [idx, gzip.compress(idx)], partial(read_idx, item_shape=(4, 4))),
        "digits": Reader("training.pt", [digits], lambda path: split(os.path.dirname(path))),
    }


def readers(folder: Path) -> dict[str, Reader]:
    """All of them; some need a folder to make good files in."""
    return {
        **_pickle_readers(),
        **_array_readers(folder),
        **_record_readers(folder),
        **_image_readers(),
    }


def reading(reader: Reader, folder: Path) -> Callable[[bytes], object]:
    """The reader as a function of the content."""
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    for name, content in reader.beside.items():
        path.with_name(name).write_bytes(content)

    def read(data: bytes) -> object:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        path.write_bytes(data)
        return reader.read(str(path))

    return read
