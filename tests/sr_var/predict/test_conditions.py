"""Networks that see more than an image: what is given is to them what their training computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from sr_var.degrade.language import settle_masks
from sr_var.predict.images import is_bright
from sr_var.predict.nets import NetPair
from sr_var.predict.predictor import Predictor
from sr_var.values import GREY_LEVELS
from tests.sr_var.predict.pairs import pair_of
from tests.tiny import photo
from utils.images.files import BadImageError

SIDE = 24
Y = torch.from_numpy(photo(4, (SIDE, SIDE + 8))).permute(2, 0, 1)[None].float() / 127.5 - 1


def _in_units(image: torch.Tensor) -> Any:
    return (127.5 * (image[0] + 1)).permute(1, 2, 0).numpy()


def _expected(pair: NetPair, x: torch.Tensor) -> tuple[Any, Any]:
    mean, variance = pair(x)
    return _in_units(mean), 127.5 * variance[0].permute(1, 2, 0).sqrt().numpy()


def _require_same(found: Any, wanted: tuple[Any, Any]) -> None:
    np.testing.assert_allclose(found.mean, wanted[0], rtol=0, atol=2e-2)
    np.testing.assert_allclose(found.std, wanted[1], rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("network", ["subpixel", "unet"])
def test_a_mask_is_to_the_networks_what_it_was_in_training(network: str) -> None:
    pair = pair_of("mask:0.4", 1, network=network)
    assert pair.degradation is not None
    x = pair.degradation.apply(Y, [3])
    mask, image = x[0, 3].numpy() > 0, _in_units(Y)
    tile = {"tile": 10} if network == "subpixel" else {"tile": 64}
    predictor, wanted = Predictor(pair, **tile), _expected(pair, x)
    _require_same(predictor(image, mask=mask), wanted)
    # whatever hidden pixels hold
    for nothing in (np.nan, -9999.0):
        filled = np.where(mask[..., None], image, np.float32(nothing))
        _require_same(predictor(filled, mask=mask), wanted)
    missing = np.where(mask[..., None], image, np.float32(np.nan))
    _require_same(predictor(missing), wanted)  # NaN says it itself
    parts = [part.mean for _, part in predictor.tiles(missing)]
    np.testing.assert_array_equal(np.concatenate(parts), predictor(missing).mean)
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    of_tensor = predictor(tensor, mask=torch.from_numpy(mask))
    np.testing.assert_array_equal(of_tensor.mean.permute(1, 2, 0), predictor(missing).mean)
    assert np.isnan(missing).sum() == 3 * (~mask).sum()  # what was given stays as it is


def test_eight_bits_and_every_kind_of_mask_say_the_same() -> None:
    predictor = Predictor(pair_of("mask:0.4", 1, GREY_LEVELS))
    image = photo(5, (11, 14))
    mask = np.random.default_rng(0).random((11, 14)) > 0.4
    wanted = predictor(image, mask=mask)
    kinds: list[Any] = [mask * 255, mask * 65535, mask * 1, mask * 1.0, mask[..., None]]
    types: list[Any] = [np.uint8, np.uint16, np.int64, np.float64, np.bool_]
    for values, dtype in zip(kinds, types, strict=True):
        found = predictor(image, mask=values.astype(dtype))
        np.testing.assert_array_equal(found.mean, wanted.mean)
    floats = predictor(np.where(mask[..., None], image / 255, np.nan))
    np.testing.assert_allclose(floats.mean, wanted.mean / 255, atol=1e-4)


@pytest.mark.parametrize("words", ["noise:5-50", "noise:5-50+mask:0.1-0.3", "jpeg:20-80"])
def test_a_level_is_told_as_in_training(words: str) -> None:
    pair = pair_of(words, 1, condition_on_level=True)
    made = pair.degradation
    assert made is not None
    x = made.apply(Y, [7])
    low_high = [part.level for part in made.drawn]
    scaled = x[0, -len(low_high) :, 0, 0].numpy()
    levels = [
        (float(s) + 1) / 2 * (one.high - one.low) + one.low
        for s, one in zip(scaled, low_high, strict=True)
    ]
    levels = [
        round(level) if one.is_whole else level for level, one in zip(levels, low_high, strict=True)
    ]
    mask = {"mask": x[0, 3].numpy() > 0} if made.masks else {}
    found = Predictor(pair, tile=10)(_in_units(x[:, :3]), degradation_level=levels, **mask)
    _require_same(found, _expected(pair, x))


def test_a_mask_tells_its_level_itself() -> None:
    pair = pair_of("mask:0.1-0.9", 1, condition_on_level=True)
    image, mask = _in_units(Y), np.random.default_rng(1).random(Y.shape[2:]) > 0.5
    predictor, share = Predictor(pair), float((~mask).mean())
    one, two = predictor(image, mask=mask), predictor(image, mask=mask, degradation_level=share)
    np.testing.assert_array_equal(one.mean, two.mean)
    both = Predictor(pair_of("noise:5-50+mask:0.1-0.9", 1, condition_on_level=True))
    one, two = (both(image, mask=mask, degradation_level=given) for given in (9, [9, share]))
    np.testing.assert_array_equal(one.mean, two.mean)
    one = predictor(image, mask=mask)
    other = predictor(image, mask=mask, degradation_level=0.8)
    assert np.abs(other.mean - one.mean).max() > 0.1


@pytest.mark.parametrize(
    ("words", "factor"),
    [("area&noise:25", 4), ("area:4&noise:25", 1), ("grey&blur:2&bits:3", 1), ("area&mask:0.5", 4)],
)
def test_images_side_by_side_of_any_size(words: str, factor: int) -> None:
    """One that is smaller than X becomes blocks, a larger one channels."""
    pair = pair_of(words, factor)
    made = pair.degradation
    assert made is not None
    x = made.apply(Y, [5])
    given = []
    place = 0
    for one in made.factors:
        size = max(factor // one, 1) ** 2
        part = F.pixel_shuffle(x[:, place : place + 3 * size], max(factor // one, 1))
        given.append(_in_units(part[:, :, :: max(one // factor, 1), :: max(one // factor, 1)]))
        place += 3 * size
    mask = {}
    if made.masks:
        mask = {"mask": F.pixel_shuffle(x[:, place:], factor)[0, 0].numpy() > 0}
    for tile in (5, 64):
        found = Predictor(pair, tile=tile)(given[0], also=given[1:], **mask)
        assert found.mean.shape == (*Y.shape[2:], 3)
        _require_same(found, _expected(pair, x))


def test_a_mask_that_is_reduced_is_given_at_its_own_size(tmp_path: Path) -> None:
    pixels = np.kron(np.random.default_rng(2).random((12, 16)) > 0.5, np.ones((2, 2))) * 255
    pixels[0, :] = 0
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "m.png")
    pair = pair_of(settle_masks(f"mask:{tmp_path / 'm.png'}+area"), 4)
    assert pair.degradation is not None
    x = pair.degradation.apply(Y, [0])
    wanted, image = _expected(pair, x), _in_units(x[:, :3])
    _require_same(Predictor(pair)(image), wanted)  # that of the training
    _require_same(Predictor(pair)(image, mask=pixels.astype(np.uint8)), wanted)
    with pytest.raises(ValueError, match="32×24"):
        Predictor(pair)(image, mask=np.ones((6, 8)))
    with pytest.raises(ValueError, match="--mask"):
        Predictor(pair)(image[:5])  # of another size, and nothing says what is hidden


@pytest.mark.parametrize(
    ("words", "given", "parts"),
    [
        ("mask:0.5", {}, ("--mask", "NaN")),
        ("mask:0.5", {"mask": np.ones((3, 4))}, ("4×3", "32×24")),
        ("mask:0.5", {"mask": np.zeros((SIDE, SIDE + 8))}, ("hides all", "invert")),
        ("mask:0.5", {"mask": np.full((SIDE, SIDE + 8), 7.5)}, ("7.5",)),
        ("mask:0.5", {"mask": [np.ones((SIDE, SIDE + 8))] * 2}, ("--mask", "2 masks")),
        ("mask:0.5", {"degradation_level": 0.5}, ("--degradation_level 0.5", "leave it out")),
        ("noise:5-50", {"level": True}, ("--degradation_level", "noise (from 5 to 50)")),
        ("noise:5-50", {"level": True, "degradation_level": 60}, ("60", "from 5 to 50")),
        ("noise:5-50", {"level": True, "degradation_level": [6, 7]}, ("6,7", "give it")),
        ("jpeg:5-50", {"level": True, "degradation_level": 6.5}, ("6.5", "whole")),
        ("noise:5-50", {"mask": np.ones((SIDE, SIDE + 8))}, ("--mask", "see 0", "leave it out")),
        ("noise:25", {"also": np.ones((SIDE, SIDE + 8))}, ("--also", "see 0")),
        ("grey&noise:25", {}, ("--also", "see 1")),
        ("grey&noise:25", {"also": np.ones((4, 4))}, ("4×4", "32×24")),
    ],
)
def test_what_does_not_fit_is_said(words: str, given: dict[str, Any], parts: Any) -> None:
    given = dict(given)
    pair = pair_of(words, 1, condition_on_level=given.pop("level", False))
    with pytest.raises(ValueError) as told:
        Predictor(pair)(_in_units(Y), **given)
    assert all(part in str(told.value) for part in parts), str(told.value)


def test_numbers_that_are_no_mask_are_refused() -> None:
    for mask in (np.zeros(4), np.full((2, 2), np.nan), np.full((2, 2), -1), np.full((2, 2), 9)):
        with pytest.raises(BadImageError, match="mask"):
            is_bright(mask)
