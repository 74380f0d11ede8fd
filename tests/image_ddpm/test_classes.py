"""Names of classes: kept by denoisers and guides, compared, drawn from, and used for labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.stored_flags import OtherClasses, require_known_labels
from image_ddpm.flags import ImageSampleFlags
from image_ddpm.loops import ImageDiffusionTrainLoop
from image_ddpm.sample_files import picture_name
from image_ddpm.sampling import with_label_numbers
from tests.image_ddpm.tiny import (
    NET,
    PROCESS,
    TRAINING,
    read_samples,
    rewrite_manifest,
    write_images,
    write_model,
)
from tests.tiny import done, run, words
from utils.files.records import read_json
from utils.images.listing import Entry

# more labels than classes, as the default of 1000 leaves
NETWORK = {**NET, **PROCESS, "class_cond": True, "num_classes": 40}
CLASSIFIER: dict[str, Any] = {
    "image_size": NET["image_size"],
    "classifier_width": 8,
    "classifier_depth": 1,
    "classifier_channel_mult": "1,2",
    "classifier_attention_resolutions": "8",
    "classifier_num_head_channels": 8,
}
NOISE = {name: PROCESS[name] for name in ("diffusion_steps", "noise_schedule")}
FEW = {"num_samples": 6, "batch_size": 6, "timestep_respacing": "1"}


def _pets(folder: Path, *classes: str) -> Path:
    return write_images(folder, [f"{name}_{i}.png" for name in classes for i in (1, 2)])


def _train(script: str, images: Path, log_dir: Path, **flags: Any) -> Path:
    common = {"batch_size": 2, "log_interval": 1, "max_step": 1, "data_dir": images}
    done(script, words(common, flags, log_dir=log_dir))
    return log_dir / "model000001.pt"


def _classifier(images: Path, log_dir: Path, **flags: Any) -> Path:
    return _train("classifier_train", images, log_dir, **{**CLASSIFIER, **NOISE, **flags})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A denoiser and a guide of two classes of 40, and their images; read only."""
    root = tmp_path_factory.mktemp("classes")
    images = _pets(root / "images", "cat", "dog")
    _train("image_train", images, root / "denoiser", **NETWORK)
    _classifier(images, root / "guide", num_classes=2)
    return root


@pytest.fixture(scope="module")
def denoiser(place: Path) -> Path:
    return place / "denoiser" / "model000001.pt"


@pytest.fixture(scope="module")
def guide(place: Path) -> Path:
    return place / "guide" / "model000001.pt"


# ---- which classes are drawn


def test_random_labels_are_among_the_classes_of_the_training(
    denoiser: Path, tmp_path: Path
) -> None:
    done("image_sample", words(FEW, model_path=denoiser, log_dir=tmp_path))
    labels = read_samples(tmp_path)["arr_1"]
    assert set(labels) == {0, 1}


def test_a_folder_of_samples_of_all_labels_is_not_gone_on_with(
    denoiser: Path, tmp_path: Path
) -> None:
    """As an earlier version drew them, from labels without images, too."""
    flags = words(FEW, model_path=denoiser, log_dir=tmp_path)
    done("image_sample", flags)
    record = tmp_path / ".sampling.json"
    settings = read_json(record)
    del settings["random_labels"]
    record.write_text(json.dumps(settings))
    outcome = run("image_sample", flags)
    assert outcome.code == 3 and "--random_labels '0,1'" in outcome.err
    settings["labels"] = "0"
    record.write_text(json.dumps(settings))
    done("image_sample", [*flags, "--labels", "0"])  # chosen labels are what they were


def test_a_grid_of_samples_shows_the_classes_of_the_training(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    real = ImageDiffusionTrainLoop.draw_grid

    def drawing(self: ImageDiffusionTrainLoop) -> torch.Tensor:
        handle = self.model.label_emb.register_forward_hook(lambda m, args, out: seen.append(args))
        found = real(self)
        handle.remove()
        return found

    monkeypatch.setattr(ImageDiffusionTrainLoop, "draw_grid", drawing)
    grid = {"sample_interval": 1, "num_grid_samples": 3, "max_step": 2}
    _train("image_train", place / "images", tmp_path, **NETWORK, **grid)
    assert seen and all(args[0].tolist() == [0, 1, 0] for args in seen)


def test_classes_can_be_chosen_by_name(denoiser: Path, tmp_path: Path) -> None:
    done("image_sample", words(FEW, model_path=denoiser, log_dir=tmp_path, labels="dog, 0,dog"))
    assert read_samples(tmp_path)["arr_1"].tolist() == [1, 0, 1, 1, 0, 1]
    same = words(FEW, model_path=denoiser, log_dir=tmp_path, labels="1,0,1")
    done("image_sample", same)  # it is the same run


@pytest.mark.parametrize(
    ("labels", "parts"),
    [
        ("dgo", ["dog?"]),
        ("Xyzzy", ["0 'cat'", "1 'dog'"]),
        ("7", ["label 7", "0 'cat'"]),
        ("40", ["0 to 39"]),
        ("-1", ["0 to 39"]),
    ],
)
def test_a_class_that_the_network_was_not_trained_on_is_refused(
    denoiser: Path, tmp_path: Path, labels: str, parts: list[str]
) -> None:
    outcome = run("image_sample", words(FEW, model_path=denoiser, log_dir=tmp_path, labels=labels))
    assert outcome.code == 2 and f"--labels {labels}" in outcome.err
    assert all(part in outcome.err for part in parts), outcome.err


def test_names_are_refused_where_the_checkpoint_keeps_none(tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.pt", class_cond=True, num_classes=40)
    flags = words(NETWORK, FEW, model_path=model, log_dir=tmp_path / "log", labels="cat")
    outcome = run("image_sample", flags)
    assert outcome.code == 2 and "--labels cat" in outcome.err and "keep" in outcome.err


def test_a_number_is_a_label_also_where_a_class_is_called_so() -> None:
    said: list[str] = []
    names = ["10", "2"]  # as folders of numbers are sorted
    flags = with_label_numbers(ImageSampleFlags(labels="0, 2"), names, said.append)
    assert flags.labels == "0, 2"
    (line,) = said
    assert "--labels 2" in line and "label 1" in line
    with_label_numbers(ImageSampleFlags(labels="0,1"), ["0", "1"], said.append)
    assert len(said) == 1


# ---- what is written


def test_pictures_and_a_file_beside_the_samples_name_the_classes(
    denoiser: Path, tmp_path: Path
) -> None:
    done("image_sample", words(FEW, model_path=denoiser, log_dir=tmp_path, labels="dog", png=True))
    names = sorted(path.name for path in (tmp_path / "png").iterdir())
    assert names == [f"1_dog_{index:06d}.png" for index in range(6)]
    assert read_json(tmp_path / "classes.json") == {"0": "cat", "1": "dog"}
    assert set(read_samples(tmp_path)) == {"arr_0", "arr_1"}


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("dog", "0_dog_000007.png"),
        ("", "0_000007.png"),
        ("0", "0_000007.png"),
        ("a_b/../c d\n", "0_a-b-..-c-d-_000007.png"),
        ("\udcff\0", "0_--_000007.png"),
        ("x" * 500, f"0_{'x' * 50}_000007.png"),
    ],
)
def test_the_name_of_a_picture_is_one_file_whatever_the_class_is_called(
    class_name: str, expected: str
) -> None:
    assert picture_name(7, 0, [class_name]) == expected
    assert picture_name(7, None, [class_name]) == "000007.png"
    assert picture_name(7, 1, [class_name]) == "1_000007.png"


def test_letters_of_four_bytes_fit_into_the_name_of_a_file(tmp_path: Path) -> None:
    name = picture_name(123456789, 123456789, ["\U00020000" * 500])
    assert len(name.encode()) <= 255


# ---- guides


def _guided(denoiser: Path, guide: Path, log_dir: Path, **more: Any) -> list[str]:
    files = {"model_path": denoiser, "classifier_path": guide, "log_dir": log_dir}
    return words(FEW, files, dry_run=True, **more)


def test_a_guide_of_the_same_classes_needs_no_flags(
    denoiser: Path, guide: Path, tmp_path: Path
) -> None:
    """Though it has 2 labels and the denoiser 40, of which 38 have no images."""
    done("image_sample", _guided(denoiser, guide, tmp_path))
    done("image_sample", _guided(denoiser, guide, tmp_path, **CLASSIFIER))


def test_a_guide_of_other_classes_is_refused(place: Path, denoiser: Path, tmp_path: Path) -> None:
    other = _classifier(_pets(tmp_path / "images", "ant", "dog"), tmp_path / "c", num_classes=40)
    outcome = run("image_sample", _guided(denoiser, other, tmp_path / "log"))
    assert outcome.code == 4 and "'ant'" in outcome.err and "'cat'" in outcome.err
    assert str(other) in outcome.err and str(denoiser) in outcome.err


def test_a_guide_of_another_number_of_classes_is_refused_where_names_are_not_known(
    place: Path, guide: Path, tmp_path: Path
) -> None:
    model = write_model(tmp_path / "m.pt", class_cond=True, num_classes=40)
    outcome = run("image_sample", _guided(model, guide, tmp_path / "log", **NETWORK))
    assert outcome.code == 4 and "--num_classes 40" in outcome.err


@pytest.mark.parametrize(
    "change",
    [
        {"noise_schedule": "linear", "diffusion_steps": 40},
        {"rescale_timesteps": False},
        {"noised": False},
        {"image_size": 32},
        {"in_channels": 1},
    ],
    ids=str,
)
def test_a_guide_of_other_noise_or_images_than_the_denoiser_is_refused(
    place: Path, denoiser: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    flags = {"num_classes": 2, "classifier_pool": "adaptive", **change}
    other = _classifier(place / "images", tmp_path / "c", **flags)
    outcome = run("image_sample", _guided(denoiser, other, tmp_path / "log"))
    assert outcome.code == 4 and str(other) in outcome.err
    for name, value in change.items():
        assert f"--{name} " in outcome.err and f"(there: {value!r})" in outcome.err


def test_a_denoiser_without_classes_takes_those_of_its_guide(guide: Path, tmp_path: Path) -> None:
    model = write_model(tmp_path / "m.pt")
    files = {"model_path": model, "classifier_path": guide, "log_dir": tmp_path / "log"}
    done("image_sample", words(NET, PROCESS, FEW, files, labels="dog"))
    assert set(read_samples(tmp_path / "log")["arr_1"]) == {1}
    refused = run("image_sample", words(NET, PROCESS, FEW, files, num_classes=3))
    assert refused.code == 4 and "--num_classes 3" in refused.err


# ---- trainings of a classifier


def test_a_classifier_is_not_gone_on_with_on_other_classes(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "guide", tmp_path / "log")
    flags = {**CLASSIFIER, **NOISE, "num_classes": 2, "resume_checkpoint": "auto", "max_step": 2}
    others = _pets(tmp_path / "others", "ant", "cat")
    argv = words(flags, data_dir=others, log_dir=tmp_path / "log", batch_size=2)
    outcome = run("classifier_train", argv)
    assert outcome.code == 4 and "'ant'" in outcome.err and "0 'cat', 1 'dog'" in outcome.err
    assert "model000001.pt" in outcome.err and "--init_from" in outcome.err


def test_a_classifier_goes_on_without_its_flags_and_not_with_others(
    place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "guide", tmp_path / "log")
    flags = {"resume_checkpoint": "auto", "max_step": 2, "batch_size": 2}
    argv = words(flags, data_dir=place / "images", log_dir=tmp_path / "log")
    for name, value in (("noised", False), ("noise_schedule", "linear"), ("classifier_depth", 2)):
        outcome = run("classifier_train", [*argv, f"--{name}", str(value)])
        assert outcome.code == 4 and f"--{name} {value!r}" in outcome.err
    done("classifier_train", [*argv, "--learn_sigma", "True"])  # of no meaning to a classifier
    manifest = read_json(tmp_path / "log" / "ckpt000002.json")
    assert manifest["network"]["class"] == "EncoderUNet"
    assert manifest["process"] == {**NOISE, "rescale_timesteps": True, "noised": True}
    assert manifest["state"]["classes"] == ["cat", "dog"]


def test_a_loop_notices_other_classes_that_no_list_of_images_tells_of(
    place: Path, tmp_path: Path
) -> None:
    """Labels of a list stay the same numbers while their classes get other names."""
    shutil.copytree(place / "denoiser", tmp_path / "log")
    manifest = tmp_path / "log" / "ckpt000001.json"
    rewrite_manifest(manifest, lambda content: content["state"].update(classes=["cat", "ox"]))
    flags = {**NETWORK, **TRAINING, "resume_checkpoint": "auto", "max_step": 2}
    argv = words(flags, data_dir=place / "images", log_dir=tmp_path / "log")
    outcome = run("image_train", argv)
    assert outcome.code == 4 and "'dog'" in outcome.err and "'ox'" in outcome.err


def test_features_of_a_classifier_need_no_flags_and_take_no_others(
    place: Path, guide: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "s.npz", arr_0=np.zeros((4, 8, 8, 3), np.uint8))
    common = {"reference": place / "images", "samples": tmp_path / "s.npz", "features": guide}
    common |= {"features_network": "encoder_unet", "log_dir": tmp_path / "log", "dry_run": True}
    said = done("image_eval", words(common)).out
    assert "image_size=16" in said
    outcome = run("image_eval", words(common, classifier_num_head_channels=4))
    assert outcome.code == 4 and "--classifier_num_head_channels 4" in outcome.err


@pytest.mark.parametrize("known", [["cat", "dog"], ["cat", "", "dog"]])
@pytest.mark.parametrize("label", [0, 1, 5])
def test_an_info_dict_with_a_class_that_the_network_does_not_know_is_refused(
    known: list[str], label: int
) -> None:
    entries = [Entry("a", 0, "cat"), Entry("b", label, "cow")]
    with pytest.raises(OtherClasses, match=r"info\.pkl.*'cow'.*'cat'"):
        require_known_labels(entries, known, "info.pkl")
    require_known_labels(entries[:1], known, "info.pkl")
    require_known_labels(entries, [], "info.pkl")
    with pytest.raises(OtherClasses, match="label 7"):
        require_known_labels([Entry("a", 7, "cat")], known, "info.pkl")


def test_each_is_one_sample_of_every_class_of_the_training(denoiser: Path, tmp_path: Path) -> None:
    """The network knows forty labels, of which two had images."""
    few = {name: value for name, value in FEW.items() if name != "num_samples"}
    for folder, more in (("one", {}), ("three", {"num_samples": 3})):
        flags = words(few, model_path=denoiser, log_dir=tmp_path / folder, labels="each", **more)
        done("image_sample", flags)
    assert read_samples(tmp_path / "one")["arr_1"].tolist() == [0, 1]
    assert read_samples(tmp_path / "three")["arr_1"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("ending", ["jpg", "webp", "tif"])
def test_pictures_are_of_the_chosen_format(denoiser: Path, tmp_path: Path, ending: str) -> None:
    flags = words(FEW, model_path=denoiser, log_dir=tmp_path, png=True, image_format=ending)
    done("image_sample", flags)
    stored = read_samples(tmp_path)["arr_0"]
    pictures = sorted((tmp_path / ending).iterdir(), key=lambda path: path.stem[-6:])
    assert len(pictures) == len(stored) and not (tmp_path / "png").exists()
    for path, image in zip(pictures, stored, strict=True):
        assert path.suffix == f".{ending}"
        found = np.asarray(Image.open(path).convert("RGB")).astype(int)
        largest = np.abs(found - image).max()
        assert largest == 0 if ending != "jpg" else 0 < largest < 64
    assert (tmp_path / "grid.png").exists()
