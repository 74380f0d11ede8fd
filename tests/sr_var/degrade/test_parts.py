"""What each degradation makes of an image, in numbers."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from sr_var.degradation import area_downsample
from sr_var.degrade import part
from sr_var.degrade.language import Degradation
from sr_var.degrade.linear import gaussian_matrices
from tests.tiny import photo
from utils.images.pixels import bytes_to_image, image_to_255, image_to_bytes, to_hwc
from utils.process.errors import DataError


def _image(size: tuple[int, int] = (24, 36), number: int = 2) -> Tensor:
    photos = [photo(seed, size).transpose(2, 0, 1) for seed in range(number)]
    return bytes_to_image(torch.from_numpy(np.stack(photos)))


def _x(text: str, image: Tensor, factor: int = 1, **settings: bool) -> Tensor:
    degradation = Degradation.parse(text, factor, image.shape[1], **settings)
    x = degradation.apply(image, list(range(len(image))))
    assert x.shape[1] == image.shape[1] + degradation.num_extra
    return x


def _grey(value: float, size: int = 400) -> Tensor:
    return torch.full((1, 1, size, size), float(value))


def test_area_is_what_it_always_was_bit_for_bit() -> None:
    image = _image((24, 24))
    assert torch.equal(_x("area", image, 4), area_downsample(image, 6))
    assert torch.equal(_x("area:2+area", image, 4), _x("area:2+area:2", image, 4))


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_is_that_of_pillow(factor: int) -> None:
    image = _image()
    x = image_to_255(_x(f"bicubic:{factor}", image, factor))
    size = (36 // factor, 24 // factor)
    for made, given in zip(x, image_to_255(image), strict=True):
        for channel, source in zip(made, given, strict=True):
            reduced = Image.fromarray(source.numpy()).resize(size, Image.Resampling.BICUBIC)
            np.testing.assert_allclose(channel.numpy(), np.asarray(reduced), atol=2e-3)


def test_blur_has_the_weights_of_a_gaussian_and_keeps_flat_images() -> None:
    point = torch.zeros(1, 1, 41, 41)
    point[..., 20, 20] = 1
    x = _x("blur:1.6", point)[0, 0].double()
    assert float(x.sum()) == pytest.approx(1, abs=1e-6)
    assert float(x[20, 21] / x[20, 20]) == pytest.approx(math.exp(-1 / (2 * 1.6**2)), rel=1e-5)
    assert float(x[18, 23] / x[20, 20]) == pytest.approx(math.exp(-13 / (2 * 1.6**2)), rel=1e-5)
    torch.testing.assert_close(_x("blur:3-9", _grey(0.3, 5)), _grey(0.3, 5))


def test_blur_mirrors_the_image_at_its_outermost_pixel() -> None:
    line = torch.arange(5.0).reshape(1, 1, 1, 5) / 5
    mirrored = torch.cat([line.flip(-1)[..., :-1], line, line.flip(-1)[..., 1:]], dim=-1)
    wide = _x("blur:0.9", mirrored)
    torch.testing.assert_close(_x("blur:0.9", line), wide[..., 4:9])
    # a kernel far longer than the image is mirrored again and again
    rows = gaussian_matrices(torch.tensor([20.0]), 3)[0].sum(dim=1)
    torch.testing.assert_close(rows, torch.ones(3, dtype=torch.float64))


def test_grey_is_the_luma_in_every_channel() -> None:
    image = _image()
    x = _x("grey", image)
    luma = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    for channel in range(3):
        torch.testing.assert_close(x[:, channel], luma)
    rounded = np.asarray(Image.fromarray(to_hwc(image_to_bytes(image[0]))).convert("L"))
    assert np.abs(image_to_255(x[0, 0]).numpy() - rounded).max() <= 0.51


def test_noise_has_its_std_and_no_mean() -> None:
    x = image_to_255(_x("noise:25", _grey(0.2))) - image_to_255(_grey(0.2))
    assert float(x.std()) == pytest.approx(25, rel=0.01)
    assert float(x.mean()) == pytest.approx(0, abs=0.3)
    assert torch.equal(_x("noise:0", _image()), _image())


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_poisson_keeps_the_mean_and_has_the_variance_of_counts(share: float) -> None:
    peak = 30
    x = (_x(f"poisson:{peak}", _grey(2 * share - 1)) + 1) / 2
    assert float(x.mean()) == pytest.approx(share, rel=0.01)
    assert float(x.var()) == pytest.approx(share / peak, rel=0.02)
    counts = x * peak
    torch.testing.assert_close(counts, counts.round(), rtol=0, atol=1e-3)
    assert torch.equal(_x("poisson:5", _grey(-1.5, 4)), _grey(-1, 4))


@pytest.mark.parametrize("quality", [1, 30, 95])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_jpeg_is_that_of_pillow(quality: int, num_channels: int) -> None:
    image = _image()[:, :num_channels]
    x = _x(f"jpeg:{quality}", image)
    for made, given in zip(x, image, strict=True):
        file = io.BytesIO()
        pixels = to_hwc(image_to_bytes(given))
        Image.fromarray(pixels if num_channels == 3 else pixels[..., 0]).save(
            file, "JPEG", quality=quality
        )
        decoded = np.asarray(Image.open(file, formats=["JPEG"])).reshape(24, 36, -1)
        np.testing.assert_array_equal(to_hwc(image_to_bytes(made)), decoded)


def test_bits_are_the_nearest_levels() -> None:
    ramp = torch.linspace(-1.2, 1.2, 1001).reshape(1, 1, 7, 143)
    x = (_x("bits:3", ramp) + 1) / 2 * 7
    torch.testing.assert_close(x, x.round(), rtol=0, atol=1e-5)
    expected = ((ramp + 1) / 2 * 7).round().clamp(0, 7)
    torch.testing.assert_close(x, expected, rtol=0, atol=1e-5)
    assert len(x.round().unique()) == 8
    assert set(_x("bits:1", ramp).unique().tolist()) == {-1.0, 1.0}


def test_a_mask_hides_its_share_and_says_where() -> None:
    image = _image((200, 200), 1)
    x = _x("mask:0.3", image)
    mask = x[:, 3:]
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert float(mask.mean()) == pytest.approx(0.7, abs=0.01)
    assert torch.equal(x[:, :3], image * mask)
    assert torch.equal(_x("mask:1", image), torch.zeros(1, 4, 200, 200))
    assert torch.equal(_x("mask:0", image)[:, :3], image)


def test_a_mask_of_a_file_hides_its_dark_pixels(tmp_path: Path) -> None:
    pixels = np.zeros((24, 36), np.uint8)
    pixels[:, 10:] = 200
    path = tmp_path / "mask.png"
    Image.fromarray(pixels).save(path)
    image = _image()
    x = _x(f"mask:{path}", image)
    assert torch.equal(x[:, 3], torch.from_numpy(pixels >= 128).float().expand(2, -1, -1))
    assert torch.equal(x[..., 10:][:, :3], image[..., 10:])
    assert not x[..., :10].any()
    with pytest.raises(DataError, match="36×24 pixels, the images there 24×24"):
        _x(f"mask:{path}", _image((24, 24)))
    with pytest.raises(DataError, match="another mask"):
        _x(f"mask:{path}#0123456789ab", image)


def test_what_x_tells_is_in_it_again_when_it_is_degraded_again() -> None:
    """The pseudo-inverse of each that has one: blocks of its means, and the image itself."""
    image = _image()
    means = _x("area", image, 4)
    blocks = means.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(_x("area", blocks, 4), means, rtol=0, atol=1e-6)
    for text in ("mask:0.4", "bits:3", "poisson:0.5+bits:1"):
        x = _x(text, image)
        assert torch.equal(_x(text.split("+")[-1], x[:, :3])[:, :3], x[:, :3])
    torch.testing.assert_close(_x("grey", _x("grey", image)), _x("grey", image))


def test_threads_have_no_effect_on_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    image = _image(number=5)
    texts = ("noise:25", "poisson:9", "mask:0.5", "jpeg:5-90")
    found = []
    for number in (1, 3):
        monkeypatch.setattr(part, "chosen_threads", lambda wanted, number=number: number)
        found.append([_x(text, image) for text in texts])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


@pytest.mark.parametrize("text", ["noise:25", "poisson:9", "mask:0.5", "blur:1-3", "jpeg:5-90"])
def test_what_is_drawn_follows_the_seed_of_an_image_alone(text: str) -> None:
    degradation, image = Degradation.parse(text, 1), _image(number=4)
    whole = degradation.apply(image, [7, 8, 9, 10])
    for i in range(4):
        assert torch.equal(degradation.apply(image[i : i + 1], [7 + i]), whole[i : i + 1])
    same = degradation.apply(image[:1].expand(4, -1, -1, -1), [7, 8, 9, 10])
    assert all(not torch.equal(same[0], other) for other in same[1:])
