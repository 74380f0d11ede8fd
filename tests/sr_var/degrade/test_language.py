"""The words that name degradations: sequences, side by side, ranges, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from sr_var.degrade.language import REGISTRY, Degradation, settle_masks
from sr_var.degrade.part import own_seeds
from tests.sr_var.degrade.test_parts import _grey, _image
from utils.images.pixels import image_to_255
from utils.process.errors import DataError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "restoration.md"


def test_a_sequence_is_one_after_the_other() -> None:
    image = _image()
    x = Degradation.parse("blur:1.2+area:2+bits:3", 2).apply(image, [0, 1])
    for text, factor in (("blur:1.2", 1), ("area:2", 2), ("bits:3", 1)):
        image = Degradation.parse(text, factor).apply(image, [0, 1])
    assert torch.equal(x, image)


def test_noise_of_two_places_is_drawn_twice() -> None:
    x = Degradation.parse("noise:30+noise:40", 1, 1).apply(_grey(0.0), [5])
    assert float(image_to_255(x).std()) == pytest.approx(50, rel=0.01)
    one = Degradation.parse("noise:30", 1, 1).apply(_grey(0.0), [5])
    assert not torch.allclose(x, one * 7 / 3)


def test_side_by_side_all_are_of_one_size() -> None:
    image = _image()
    both = Degradation.parse("area:4 & noise:25", 1)
    x = both.apply(image, [3, 4])
    assert (both.num_extra, x.shape) == (3, (2, 6, 24, 36))
    area = Degradation.parse("area", 4).apply(image, [3, 4])
    assert torch.equal(both.image_of(x)[..., ::4, ::4], area)
    assert torch.equal(x[:, :3, 3::4, 2::4], area)
    assert not both.has_consistency
    noisy = image_to_255(x[:, 3:] - image) - image_to_255(torch.zeros(()))
    assert float(noisy.std()) == pytest.approx(25, rel=0.05)


def test_masks_come_behind_all_images_and_shrink_with_them() -> None:
    degradation = Degradation.parse("mask:0.5+area:2&grey+area:2", 2)
    x = degradation.apply(_image(), [1, 2])
    assert x.shape == (2, 7, 12, 18)
    assert set(x[:, 6].unique().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
    assert torch.equal(x[:, 3], x[:, 5])


def test_a_level_is_drawn_evenly_anew_for_each_image_and_told_if_asked_for() -> None:
    degradation = Degradation.parse("noise:5-50", 1, 1, has_level=True)
    seeds = list(range(400))
    x = degradation.apply(_grey(0.0, 16).expand(400, -1, -1, -1), seeds)
    told = x[:, 1, 0, 0]
    assert torch.equal(x[:, 1], told[:, None, None].expand(-1, 16, 16))
    assert -1 <= float(told.min()) < -0.95
    assert 0.95 < float(told.max()) <= 1
    assert float(told.mean()) == pytest.approx(0, abs=0.1)
    stds = 127.5 * x[:, 0].flatten(1).std(dim=1)
    torch.testing.assert_close(stds, 27.5 + 22.5 * told, rtol=0.2, atol=0)
    levels = degradation.parts[0].level.of(own_seeds(seeds, 0, "level"))
    torch.testing.assert_close(levels.float(), 27.5 + 22.5 * told)


def test_a_level_beside_those_of_the_training_is_told_in_its_scale() -> None:
    trained = Degradation.parse("noise:5-45", 1, has_level=True)
    flat = torch.zeros(2, 3, 8, 8)
    for text, told in (("noise:25", 0.0), ("noise:45", 1.0), ("noise:65", 2.0)):
        x = trained.in_test(text).apply(flat, [1, 2])
        assert x.shape == (2, 4, 8, 8)
        torch.testing.assert_close(x[:, 3], torch.full((2, 8, 8), told))
    with pytest.raises(ValueError, match="other parts"):
        trained.in_test("blur:2")
    drawn = trained.in_test("noise:45-65").apply(flat, [1, 2])[:, 3, 0, 0]
    assert ((drawn > 1) & (drawn < 2)).all()


def test_whole_levels_are_met_equally_often() -> None:
    level = Degradation.parse("bits:2-4", 1).parts[0].level.of(range(3000))
    for bits in (2, 3, 4):
        assert int((level == bits).sum()) == pytest.approx(1000, abs=100)


@pytest.mark.parametrize(
    ("text", "is_linear", "is_noise_free", "is_random", "is_area"),
    [
        ("area", True, True, False, True),
        ("bicubic:4", True, True, False, False),
        ("blur:2+area", True, True, False, False),
        ("blur:1-2+area", True, True, True, False),
        ("area+noise:5", True, False, True, False),
        ("area+mask:0.5", True, True, True, False),
        ("area+poisson:5", False, False, True, False),
        ("area+bits:3", False, True, False, False),
        ("area+jpeg:30", False, True, False, False),
        ("area&grey+area", True, True, False, False),
    ],
)
def test_what_a_degradation_is(
    text: str, is_linear: bool, is_noise_free: bool, is_random: bool, is_area: bool
) -> None:
    made = Degradation.parse(text, 4)
    assert made.is_linear is is_linear
    assert made.is_noise_free is is_noise_free
    assert made.has_consistency is (is_linear and is_noise_free)
    assert made.is_random is is_random
    assert made.is_area is is_area


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("blurr:2", "did you mean blur"),
        ("xyz", "there are area, bicubic"),
        ("noise:-5", "from 0 on"),
        ("noise:50-5", "from 0 on"),
        ("noise", "no number"),
        ("noise:much", "no number"),
        ("jpeg:0", "1 to 100"),
        ("jpeg:30.5", "1 to 100"),
        ("bits:0", "1 to 16"),
        ("mask:1.5", "from 0 to 1"),
        ("mask", "no number"),
        ("blur:0", "from 0.05"),
        ("poisson:0", "photons"),
        ("grey:3", "no number"),
        ("area:0", "factors"),
        ("area:1-2", "no range"),
        ("area:2", "--small_size 1 times"),
        ("", "no degradation"),
        ("noise:5+", "no degradation"),
    ],
)
def test_what_is_no_degradation_is_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match="--degradation") as error:
        Degradation.parse(text, 1)
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("text", "factor", "num_channels"),
    [("noise:5", 4, 3), ("bicubic:3", 4, 3), ("area+area", 4, 3), ("area+bicubic:3", 4, 3)],
)
def test_factors_that_do_not_fit_the_sizes_are_refused(
    text: str, factor: int, num_channels: int
) -> None:
    with pytest.raises(ValueError, match="--degradation"):
        Degradation.parse(text, factor, num_channels)


def test_what_other_channels_cannot_be_is_refused() -> None:
    for text, num_channels in (("grey", 1), ("jpeg:30", 4)):
        with pytest.raises(ValueError, match="--in_channels is"):
            Degradation.parse(text, 1, num_channels)


def test_a_level_is_only_told_where_one_is_drawn() -> None:
    with pytest.raises(ValueError, match="--condition_on_level True"):
        Degradation.parse("noise:5", 1, has_level=True)


def test_sides_that_a_factor_does_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        Degradation.parse("area", 5).apply(_image(), [0, 1])


def test_the_file_of_a_mask_is_settled_by_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.new("L", (36, 24), 255).save(path)
    text = settle_masks(f"mask:{path} + noise:5-9 & area")
    first, _, rest = text.partition("#")
    assert first == f"mask:{path}"
    assert rest[12:] == "+noise:5-9&area"
    assert settle_masks(text) == text
    assert Degradation.parse(text, 1).apply(_image(), [0, 1])[:, 6].all()
    Image.new("L", (36, 24), 0).save(path)
    assert settle_masks(f"mask:{path}") not in text
    os.mkfifo(tmp_path / "pipe.png")  # which would be waited for
    for name in ("none.png", "pipe.png", ""):
        with pytest.raises(DataError, match="no such file"):
            settle_masks(f"mask:{tmp_path / name}")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match=r"text\.png"):
        settle_masks(f"mask:{tmp_path / 'text.png'}")


def test_every_degradation_is_in_the_table_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in REGISTRY:
        assert f"| `{name}" in page, name
