"""Small images of ten classes that a small net tells apart in seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from noisy_label.files import TEST, TRAINING, save_split


def images_of(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Stripes whose place and direction are the class, with some grain; uint8 (N, 28, 28)."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 60, (len(labels), 28, 28), generator=generator)
    for image, label in zip(noise, labels.tolist(), strict=True):
        start = 2 + 5 * (label % 5)
        if label < 5:
            image[:, start : start + 4] += 180
        else:
            image[start : start + 4] += 180
    return noise.to(torch.uint8)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 training and 100 test images; read only."""
    folder = tmp_path_factory.mktemp("stripes")
    for split, count, seed in ((TRAINING, 300, 0), (TEST, 100, 1)):
        labels = torch.arange(count) % 10
        save_split(str(folder), split, images_of(labels, seed), labels)
    return folder
