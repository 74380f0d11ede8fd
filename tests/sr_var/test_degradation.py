"""The map from a high-res image to the low-res one, and from floats to grey levels and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sr_var.data.pairs import regression_pair
from sr_var.degradation import area_downsample, bilinear_upsample
from tests.golden_recipe import GOLDENS_DIR
from utils.images.files import center_crop_arr, open_image
from utils.images.pixels import bytes_to_image

CPU = torch.device("cpu")


def _golden(name: str) -> Tensor:
    array = np.load(GOLDENS_DIR / "pipeline.npz")[name]
    if array.dtype == np.uint8:
        array = array.transpose(2, 0, 1)[None]  # HWC → NCHW
    return torch.from_numpy(np.ascontiguousarray(array))


@pytest.mark.parametrize(("size", "small_size"), [(32, 8), (24, 12), (15, 5), (7, 7), (6, 1)])
def test_area_downsample_is_the_mean_of_each_block(size: int, small_size: int) -> None:
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    factor = size // small_size
    blocks = image.numpy().astype(np.float64).reshape(2, 3, small_size, factor, small_size, factor)
    expected = blocks.mean(axis=(3, 5))
    np.testing.assert_allclose(area_downsample(image, small_size).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(32, 32), (32, 30), (30, 32)])
def test_area_downsample_refuses_what_has_no_whole_factor(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="low-res side of 9 pixels"):
        area_downsample(torch.zeros(1, 3, *shape), 9)


def test_area_downsample_of_a_rectangle_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide"):
        area_downsample(torch.zeros(1, 3, 16, 32), 8)


def test_low_res_image_and_its_upsampling_are_golden() -> None:
    high_res = bytes_to_image(_golden("crop64"))
    low_res = area_downsample(high_res, 16)
    torch.testing.assert_close(low_res, _golden("low_64_16"), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        bilinear_upsample(_golden("low_64_16"), (64, 64)), _golden("up_64_16"), rtol=0, atol=1e-6
    )


def test_file_to_network_input_is_golden() -> None:
    """The large crop is degraded; the low-res image is not a small crop of the file."""
    photo = open_image(GOLDENS_DIR / "synthetic_500x375.png")
    crop = torch.from_numpy(center_crop_arr(photo, 64).transpose(2, 0, 1).copy())[None]
    low_res, high_res = regression_pair(crop, 16, CPU)
    assert torch.equal(high_res, bytes_to_image(_golden("crop64")))
    upsampled = bilinear_upsample(low_res, (64, 64))
    torch.testing.assert_close(upsampled, _golden("up_64_16"), rtol=0, atol=1e-6)
    torch.testing.assert_close(low_res, _golden("low_64_16"), rtol=0, atol=1e-6)
    small_crop = torch.from_numpy(center_crop_arr(photo, 16).transpose(2, 0, 1).copy())[None]
    assert not torch.allclose(bytes_to_image(small_crop), low_res, atol=0.01)


def test_bilinear_upsampling_has_half_pixel_centres() -> None:
    ramp = torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2)
    row = bilinear_upsample(ramp, (8, 8))[0, 0, 0]
    expected = torch.tensor([0, 0, 1 / 8, 3 / 8, 5 / 8, 7 / 8, 1, 1])
    torch.testing.assert_close(row, expected, rtol=0, atol=1e-7)


def test_arguments_are_not_changed() -> None:
    image = torch.linspace(-1.5, 1.5, 3 * 64).reshape(1, 3, 8, 8)
    before = image.clone()
    area_downsample(image, 4)
    assert torch.equal(image, before)
