"""Labels: from names, folders or a dict, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddpm.entries import load_entries
from ddpm.stored_flags import class_names
from image_ddpm.flags import ImageDataFlags
from tests.image_ddpm.tiny import named_images, write_images
from utils.images.crops.dataset import CropDataset
from utils.images.listing import Entry
from utils.process.errors import DataError
from utils.untrusted.pickles import dump_pickle


def _labels(folder: Path, num_classes: int | None = 5, **flags: str) -> dict[str, int]:
    found = load_entries(ImageDataFlags(data_dir=str(folder), **flags), num_classes, print)  # type: ignore[arg-type]
    return {entry.name: entry.y for entry in found}


def test_label_is_the_name_up_to_the_first_underscore(tmp_path: Path) -> None:
    found = _labels(named_images(tmp_path))
    assert found["cat_1.png"] == found["cat_2.png"] == 0
    assert (found["dog_1.png"], found["eel_2.png"]) == (1, 2)


def test_folders_below_are_read_and_do_not_matter_where_names_have_labels(tmp_path: Path) -> None:
    write_images(tmp_path, ["b/x/dog_1.png", "a/cat_1_2.png", "b/cat_7.png"])
    assert _labels(tmp_path) == {"b/x/dog_1.png": 1, "a/cat_1_2.png": 0, "b/cat_7.png": 0}


def test_class_folders_give_labels_where_a_name_has_none(tmp_path: Path) -> None:
    write_images(tmp_path, ["dog/1.png", "cat/2_b.png"])
    assert _labels(tmp_path) == {"dog/1.png": 1, "cat/2_b.png": 0}


def test_source_of_the_label_can_be_chosen(tmp_path: Path) -> None:
    write_images(tmp_path, ["dog/a_1.png", "cat/b_2.png"])
    assert _labels(tmp_path) == {"dog/a_1.png": 0, "cat/b_2.png": 1}
    assert _labels(tmp_path, label_from="folder") == {"dog/a_1.png": 1, "cat/b_2.png": 0}


def test_names_that_all_say_the_same_give_way_to_class_folders(tmp_path: Path) -> None:
    write_images(tmp_path, ["dog/img_1.png", "cat/img_2.png"])
    assert _labels(tmp_path) == {"dog/img_1.png": 1, "cat/img_2.png": 0}
    assert set(_labels(tmp_path, label_from="name").values()) == {0}


def test_classes_of_the_network_decide_where_a_folder_lacks_some(tmp_path: Path) -> None:
    write_images(tmp_path, ["eel_1.png", "dog_1.png"])
    flags, known = ImageDataFlags(data_dir=str(tmp_path)), ["cat", "dog", "eel"]
    found = {entry.name: entry.y for entry in load_entries(flags, 3, print, known)}
    assert found == {"dog_1.png": 1, "eel_1.png": 2}
    with pytest.raises(DataError, match=r"'eel'.*'cat', 1 'dog'"):
        load_entries(flags, 3, print, known[:2])


def test_a_list_that_gives_a_known_class_another_label_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["one.png", "two.png"])
    info = {"dog": {"y": 0, "file_names": ["one.png"]}, "eel": {"y": 2, "file_names": ["two.png"]}}
    path = tmp_path / "info.pkl"
    dump_pickle(info, path)
    flags = ImageDataFlags(data_dir=str(tmp_path / "images"), data_info_dict_path=str(path))
    with pytest.raises(DataError, match=r"'dog'.* 0.* 1"):
        load_entries(flags, 3, print, ["cat", "dog", "eel"])
    assert len(load_entries(flags, 3, print, ["dog", "cat", "eel"])) == 2
    assert len(load_entries(flags, None, print, ["cat", "dog", "eel"])) == 2  # labels do not matter


def test_names_of_classes_are_by_label_also_where_some_have_no_images() -> None:
    entries = [Entry("1.png", 2, "dog"), Entry("2.png", 0, "cat"), Entry("3.png", 2, "dog")]
    assert class_names(entries) == ["cat", "", "dog"]
    assert class_names([Entry("1.png", 1)]) == class_names([]) == []


def test_dict_gives_labels(tmp_path: Path) -> None:
    write_images(tmp_path / "images", ["one.png", "two.png"])
    info = {"x": {"y": 4, "file_names": ["one.png"]}, "y": {"y": 2, "file_names": ["two.png"]}}
    dump_pickle(info, tmp_path / "info.pkl")
    path = str(tmp_path / "info.pkl")
    assert _labels(tmp_path / "images", data_info_dict_path=path) == {"one.png": 4, "two.png": 2}


def test_without_classes_any_name_will_do(tmp_path: Path) -> None:
    write_images(tmp_path, ["one.png", "a/two.png"])
    assert set(_labels(tmp_path, None).values()) == {0}


def test_image_without_a_label_is_named_with_the_remedies(tmp_path: Path) -> None:
    write_images(tmp_path, ["one.png", "a/two.png"])
    with pytest.raises(DataError, match=r"one\.png .*--class_cond False"):
        _labels(tmp_path)


def test_more_classes_than_the_network_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"eel_1\.png .* 2.* 0 to 1"):
        _labels(named_images(tmp_path), 2)


def test_grey_crops_have_one_channel(tmp_path: Path) -> None:
    write_images(tmp_path, ["one.png"])
    flags = ImageDataFlags(data_dir=str(tmp_path))
    colour, grey = (
        CropDataset([Entry("one.png", 0)], 8, flags, 0, channels)[0, 0, 0].image
        for channels in (3, 1)
    )
    assert grey.shape == (1, 8, 8)
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    assert float((grey[0] - luma).abs().max()) <= 1


def _said(folder: Path, **flags: str) -> str:
    lines: list[str] = []
    load_entries(ImageDataFlags(data_dir=str(folder), **flags), 5, lines.append)  # type: ignore[arg-type]
    return "\n".join(lines)


def test_names_and_folders_that_disagree_are_told_with_the_flag_that_chooses(
    tmp_path: Path,
) -> None:
    names = [f"{key}/{file}" for key in ("cat", "dog") for file in ("IMG_1.png", "DSC_2.png")]
    write_images(tmp_path, names)
    assert set(_labels(tmp_path).values()) == {0, 1}  # the documented rule: the name
    said = _said(tmp_path)
    assert "'IMG' 2" in said and "'cat' 2" in said and "--label_from folder" in said
    for choice in ("name", "folder"):
        assert "--label_from" not in _said(tmp_path, label_from=choice)


def test_name_that_begins_with_an_underscore_shows_no_class(tmp_path: Path) -> None:
    write_images(tmp_path, ["dog/_MG_1.png", "cat/IMG_2.png"])
    assert _labels(tmp_path) == {"dog/_MG_1.png": 1, "cat/IMG_2.png": 0}


def test_what_a_folder_leaves_out_is_told_at_the_start(tmp_path: Path) -> None:
    write_images(tmp_path, ["cat/1.png", "dog/2.png", ".cache/3.png", "dog/a\n4.png"])
    (tmp_path / "dog" / "5.gif").touch()
    with pytest.raises(DataError, match=r"'dog/a\\n4\.png'.*rename"):
        _said(tmp_path)
    said = _said(tmp_path, on_bad_image="skip")
    assert ".gif 1" in said and "'.cache'" in said and "1 images" in said and "unfit" in said
    assert _labels(tmp_path, on_bad_image="skip") == {"cat/1.png": 0, "dog/2.png": 1}
