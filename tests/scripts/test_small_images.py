"""Small images and turned ones: said at the start, left out or refused, alike in all scripts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_var.base_dataset import load_test_entries
from sr_var.flags.scripts import SampleFlags, TestDataFlags
from tests.pipeline import Pipeline
from tests.scripts.runs import flags_of, info_key
from tests.tiny import LARGE, SMALL, Outcome, done, photo, run, tree, words
from utils.process.errors import EXIT_DATA, DataError
from utils.untrusted.pickles import dump_pickle

TESTS = ["sr_mean_test", "sr_var_test", "ddpm_sr_sample"]
LOW, MIDDLE, HIGH, TURNED = "low.png", "middle.png", "high.png", "turned.jpg"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A low-res image, one between the sizes, a large one, and one that is stored turned."""
    folder = tmp_path / "images"
    folder.mkdir()
    sides = {LOW: SMALL, MIDDLE: LARGE - 5, HIGH: LARGE + 9}
    for seed, (name, side) in enumerate(sides.items()):
        Image.fromarray(photo(seed, (side, side + 4))).save(folder / name)
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.fromarray(photo(5, (LARGE + 8, LARGE))).save(folder / TURNED, exif=tag)
    return folder


def _info(root: Path, *names: str) -> Path:
    path = root / "info.pkl"
    dump_pickle({"n01440764": {"y": 0, "file_names": list(names)}}, path)
    return path


def _run(
    pipeline: Pipeline, script: str, images: Path, names: tuple[str, ...], **more: Any
) -> Outcome:
    flags = {**flags_of(pipeline, script, images.parent), "data_dir": images}
    flags[info_key(script)] = _info(images.parent, *names)
    return run(script, words(flags, more))


def _results(root: Path) -> set[str]:
    """Names of images that have results."""
    return {path.split("/")[0] for path in tree(root / "out") if not path.startswith(".")}


@pytest.mark.parametrize("script", TESTS)
def test_low_res_images_are_refused_where_all_of_them_are(
    pipeline: Pipeline, images: Path, script: str
) -> None:
    outcome = _run(pipeline, script, images, (LOW,))
    assert outcome.code == EXIT_DATA and "Traceback" not in outcome.err
    assert f"{LOW} {SMALL + 4}×{SMALL}" in outcome.err and "low-res already" in outcome.err
    assert _results(images.parent) == set()


@pytest.mark.parametrize("script", TESTS)
def test_small_images_among_others_are_named_and_enlarged_unless_told_otherwise(
    pipeline: Pipeline, images: Path, script: str
) -> None:
    names = (LOW, MIDDLE, HIGH)
    outcome = _run(pipeline, script, images, names, small_images="error")
    assert outcome.code == EXIT_DATA and LOW in outcome.err and _results(images.parent) == set()
    outcome = _run(pipeline, script, images, (MIDDLE, HIGH), small_images="error")
    assert outcome.code == EXIT_DATA and MIDDLE in outcome.err and HIGH not in outcome.err
    outcome = _run(pipeline, script, images, names, small_images="skip")
    assert outcome.code == 0 and _results(images.parent) == {HIGH}
    assert "2 images" in outcome.out and "left out" in outcome.out
    outcome = _run(pipeline, script, images, names)
    assert outcome.code == 0 and _results(images.parent) == {*names}
    assert any("1 of 3 images" in line and "low-res" in line for line in outcome.out.splitlines())
    assert any("2 of 3 images" in line and "32 pixels" in line for line in outcome.out.splitlines())
    assert "3 images, median" in outcome.out


def test_damaged_images_are_left_to_the_test_itself(images: Path) -> None:
    (images / LOW).write_bytes(b"no image")
    path, lines = str(_info(images.parent, LOW, MIDDLE, HIGH)), list[str]()
    flags = TestDataFlags(data_dir=str(images), data_info_dict_path=path, small_images="skip")
    found = load_test_entries(flags, (LARGE, SMALL), lines.append)
    assert [entry.name for entry in found] == [LOW, HIGH]
    (images / HIGH).write_bytes(b"no image")
    with pytest.raises(DataError, match="no image"):
        load_test_entries(flags, (LARGE, SMALL), lines.append)


def test_flag_of_the_list_is_named(images: Path) -> None:
    flags = SampleFlags(data_dir=str(images), to_sample_images_dict_path="none.pkl")
    with pytest.raises(DataError, match=r"--to_sample_images_dict_path .*none\.pkl"):
        load_test_entries(flags, (LARGE, SMALL), print)


@pytest.mark.parametrize("script", ["sr_mean_train", "ddpm_sr_train"])
def test_training_counts_small_images_and_refuses_them_on_request(
    pipeline: Pipeline, images: Path, script: str
) -> None:
    names, more = (LOW, HIGH), {"class_cond": False} if script == "ddpm_sr_train" else {}
    outcome = _run(pipeline, script, images, names, small_images="error", **more)
    assert outcome.code == EXIT_DATA and f"{LOW} is {SMALL + 4}×{SMALL}" in outcome.err
    outcome = _run(pipeline, script, images, names, **more)
    assert outcome.code == 0, outcome.err
    assert any("1 of 2 images" in line and "32 pixels" in line for line in outcome.out.splitlines())
    assert "2 images, median" in outcome.out


def test_info_dicts_say_how_many_images_are_small_and_leave_them_out(images: Path) -> None:
    root = images.parent
    flags = {"data_dir": images, "output_dir": root / "info", "log_dir": root / "log"}
    flags |= {"large_size": LARGE, "label_from": "name", "num_test_per_class": 1}
    for name in (LOW, MIDDLE, HIGH, TURNED):
        (images / name).rename(images / f"a_{name}")
    outcome = done("sr_data_info", words(flags))
    assert any("2 of 4 images" in line and "32 pixels" in line for line in outcome.out.splitlines())
    assert "4 images, median" in outcome.out
    assert any("1 of 4 images" in line and "EXIF" in line for line in outcome.out.splitlines())
    flags["overwrite"] = True
    assert any(
        "1 training" in line and "1 test" in line
        for line in done("sr_data_info", words(flags, small_images="skip")).out.splitlines()
    )
    outcome = run("sr_data_info", words(flags, small_images="error"))
    assert outcome.code == EXIT_DATA and f"a_{LOW}, {SMALL + 4}×{SMALL}" in outcome.err
    outcome = run("sr_data_info", words(flags, small_images="skip", check_images=False))
    assert outcome.code == 2 and "--check_images" in outcome.err


def _mean(root: Path) -> np.ndarray[Any, Any]:
    (path,) = (root / "out" / TURNED).glob("high_res_mean_*.npy")
    array: np.ndarray[Any, Any] = np.load(path)
    return array


def test_orientation_is_applied_on_request_and_results_tell(
    pipeline: Pipeline, images: Path
) -> None:
    root = images.parent
    outcome = _run(pipeline, "sr_mean_test", images, (TURNED,))
    assert any("1 of 1 images" in line and "EXIF" in line for line in outcome.out.splitlines())
    plain = _mean(root)
    outcome = _run(pipeline, "sr_mean_test", images, (TURNED,), apply_orientation=True)
    assert outcome.code == EXIT_DATA and "--apply_orientation False" in outcome.err
    assert np.array_equal(_mean(root), plain)
    shutil.rmtree(root / "out")
    outcome = _run(pipeline, "sr_mean_test", images, (TURNED,), apply_orientation=True)
    assert outcome.code == 0 and "EXIF" not in outcome.out
    turned = _mean(root)
    assert not np.array_equal(turned, plain)
    # as if the pixels were stored that way
    with Image.open(images / TURNED) as stored:
        upright = stored.transpose(Image.Transpose.ROTATE_270)
    upright.save(images / "upright.png")
    shutil.rmtree(root / "out")
    assert _run(pipeline, "sr_mean_test", images, ("upright.png",)).code == 0
    (path,) = (root / "out" / "upright.png").glob("high_res_mean_*.npy")
    np.testing.assert_array_equal(turned, np.load(path))


def test_samples_of_images_that_lie_another_way_are_not_mixed(
    pipeline: Pipeline, images: Path
) -> None:
    assert _run(pipeline, "ddpm_sr_sample", images, (TURNED,)).code == 0
    outcome = _run(pipeline, "ddpm_sr_sample", images, (TURNED,), apply_orientation=True)
    assert outcome.code == EXIT_DATA and "--apply_orientation" in outcome.err


def test_verification_of_images_that_lie_another_way_is_refused(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = flags_of(pipeline, "sr_var_verification", tmp_path)
    outcome = run("sr_var_verification", words(flags, apply_orientation=True))
    assert outcome.code == EXIT_DATA and "--apply_orientation False" in outcome.err
    nets = tmp_path / "nets"
    shutil.copytree(pipeline.nets_dir, nets)
    stamp = nets / f".mean_{pipeline.mean_steps}.json"
    record = {**json.loads(stamp.read_text()), "apply_orientation": True}
    stamp.write_text(json.dumps(record))
    outcome = run("sr_var_verification", words(flags, sr_model_output_dir=nets))
    assert outcome.code == EXIT_DATA and str(stamp) in outcome.err


def test_training_does_not_go_on_with_images_another_way_up(
    pipeline: Pipeline, images: Path
) -> None:
    names = (HIGH, TURNED)
    assert _run(pipeline, "sr_mean_train", images, names).code == 0
    more = {"resume_checkpoint": "auto", "max_step": 2}
    outcome = _run(pipeline, "sr_mean_train", images, names, apply_orientation=True, **more)
    assert outcome.code == EXIT_DATA and "--apply_orientation True" in outcome.err
    assert _run(pipeline, "sr_mean_train", images, names, **more).code == 0
