"""Grey levels and floats: a round trip without loss, rounding without bias."""

from __future__ import annotations

import torch

from utils.images.pixels import bytes_to_image, image_to_255, image_to_bytes


def test_all_256_levels_survive_the_way_to_float_and_back() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(image_to_bytes(bytes_to_image(levels)), levels)
    assert bytes_to_image(levels).min() == -1 and bytes_to_image(levels).max() == 1


def test_grey_levels_are_rounded_and_clipped_without_bias() -> None:
    values_255 = torch.tensor([-300.0, -0.6, 0.4, 0.6, 17.49, 17.51, 254.6, 255.4, 900.0])
    expected = torch.tensor([0, 0, 0, 1, 17, 18, 255, 255, 255], dtype=torch.uint8)
    assert torch.equal(image_to_bytes(values_255 / 127.5 - 1), expected)
    uniform = torch.rand(100_000, generator=torch.Generator().manual_seed(0)) * 254 + 0.5
    error = image_to_bytes(uniform / 127.5 - 1).double() - uniform.double()
    # uniform on ±1/2: mean 0 with standard error sqrt(1/12 / 1e5) = 9e-4; truncation has -1/2
    assert abs(float(error.mean())) < 4 * 9.2e-4
    assert float(error.abs().max()) < 0.5001


def test_grey_levels_in_float_are_neither_rounded_nor_clipped() -> None:
    image = torch.tensor([-1.2, 0.001, 1.5], dtype=torch.float64)
    expected = torch.tensor([-25.5, 127.6275, 318.75], dtype=torch.float64)
    torch.testing.assert_close(image_to_255(image), expected)


def test_arguments_are_not_changed() -> None:
    image = torch.linspace(-1.5, 1.5, 7)
    before = image.clone()
    for function in (image_to_255, image_to_bytes):
        function(image)
        assert torch.equal(image, before)
