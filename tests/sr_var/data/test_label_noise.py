"""Labels with noise: which labels, the law of the noise, and what the nets then learn."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from sr_var.data.folds import CrossFit
from sr_var.data.label_noise import LabelNoise, label_noise_state, say_label_noise
from sr_var.data.pairs import load_regression_data
from sr_var.data.validation import load_validation
from sr_var.flags.scripts import DataFlags, MeanTrainFlags, NoisyTrainFlags, VarTrainFlags
from sr_var.mean_utils import SRMeanTrainLoop
from sr_var.var_utils import SRVarTrainLoop
from tests.pipeline import Pipeline
from tests.scripts.runs import assert_refused, flags_of
from tests.sr_var.test_mean_utils import Table
from tests.tiny import LARGE, SMALL, TinyData, done, run, words
from utils.metrics import HALF_RANGE_255
from utils.process.errors import EXIT_CHECKPOINT, EXIT_USAGE

CPU = torch.device("cpu")
Pair = tuple[Any, torch.Tensor]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    folder = tmp_path_factory.mktemp("tiny")
    return TinyData.write(folder / "images", folder / "info")


def _batches(
    data: TinyData,
    flags: type[NoisyTrainFlags] = MeanTrainFlags,
    position: int = 0,
    cross_fit: CrossFit | None = None,
    **train: Any,
) -> list[Pair]:
    """Three batches of two from a position in the stream on."""
    folder = {name: str(value) for name, value in data.train_flags.items()}
    asked, sizes = flags(batch_size=2, **train), (LARGE, SMALL)
    found = load_regression_data(
        DataFlags(**folder), sizes, asked, CPU, lambda line: None, cross_fit
    )
    return list(itertools.islice(found.batches(position), 3))


def test_without_the_flag_labels_are_the_images_bit_for_bit(data: TinyData) -> None:
    for (x, y), (x0, y0) in zip(_batches(data), _batches(data, label_noise=0.0), strict=True):
        assert torch.equal(x, x0) and torch.equal(y, y0)
        grey = (y + 1) * HALF_RANGE_255
        torch.testing.assert_close(grey, grey.round(), rtol=0, atol=1e-4)  # 8-bit images
    assert label_noise_state(0.0) == {} and LabelNoise.of(MeanTrainFlags()) is None


def test_the_noise_is_added_to_labels_alone_with_the_std_that_was_asked_for(
    data: TinyData,
) -> None:
    clean, noisy = _batches(data), _batches(data, label_noise=25.0)
    noise = torch.cat([b[1] - a[1] for a, b in zip(clean, noisy, strict=True)]) * HALF_RANGE_255
    assert all(torch.equal(a[0], b[0]) for a, b in zip(clean, noisy, strict=True))
    n = noise.numel()  # 18432 values: std of the mean 25/√n, of the std 25/√(2n); 4 of them
    assert abs(noise.mean()) < 4 * 25 / math.sqrt(n)
    assert abs(noise.std() - 25) < 4 * 25 / math.sqrt(2 * n)
    pairs = torch.corrcoef(noise.flatten(1))  # of different images: independent
    assert (pairs - torch.eye(6)).abs().max() < 5 / math.sqrt(n / 6)


def test_the_noise_is_a_function_of_seed_net_and_position(data: TinyData) -> None:
    first = _batches(data, label_noise=10.0)
    resumed = _batches(data, label_noise=10.0, position=2)
    assert torch.equal(first[1][1], resumed[0][1]) and torch.equal(first[2][1], resumed[1][1])
    folded = _batches(data, label_noise=10.0, cross_fit=CrossFit(2, "image"))
    assert torch.equal(first[0][1], folded[0][1])  # residuals of all folds: the same labels
    clean = _batches(data)[0][1]
    of_mean = first[0][1] - clean
    of_variance = _batches(data, VarTrainFlags, label_noise=10.0)[0][1] - clean
    correlation = torch.corrcoef(torch.stack([of_mean.flatten(), of_variance.flatten()]))[0, 1]
    assert abs(correlation) < 5 / math.sqrt(of_mean.numel())


def test_the_variance_target_rises_by_the_square_of_the_noise_and_the_mean_stays() -> None:
    """Minimisers over 3 equally likely images of one input: μ and v without, μ and v + s² with."""
    s, num = 25.0 / HALF_RANGE_255, 6000
    generator = torch.Generator().manual_seed(0)
    three = torch.rand(3, 3, 2, 2, generator=generator, dtype=torch.float64) - 0.5
    label, batch = three.repeat(num // 3, 1, 1, 1), torch.zeros(num, 3, 2, 2, dtype=torch.float64)
    noisy = LabelNoise(25.0, 0, "variance").added_to(label, range(num))
    mean, variance = three.mean(dim=0), three.var(dim=0, correction=0)
    for y, added in ((label, 0.0), (noisy, s**2)):
        of_mean = SRMeanTrainLoop(model=Table(mean), data=[(batch, y)])
        of_variance = SRVarTrainLoop(
            model=Table(variance + added), mean_model=Table(mean), data=[(batch, y)]
        )
        # gradient 2 (f − average label) / 12: the average of 6000 labels is off by its error
        residual = (y - mean).square()
        for loop, spread in ((of_mean, y.std(dim=0)), (of_variance, residual.std(dim=0))):
            loss, _ = loop.compute_loss(batch, y)
            loss.backward()
            gradient = loop.model.value.grad * mean.numel() / 2
            allowed = 4.5 * spread / math.sqrt(num) if added else torch.full_like(mean, 1e-6)
            assert (gradient.abs() <= allowed).all()
        # without the s² the same gradient is far from 0, so the bound above can fail
    of_variance = SRVarTrainLoop(
        model=Table(variance), mean_model=Table(mean), data=[(batch, noisy)]
    )
    of_variance.compute_loss(batch, noisy)[0].backward()
    gradient = of_variance.model.value.grad * mean.numel() / 2
    assert (gradient.abs() > 6 * (noisy - mean).square().std(dim=0) / math.sqrt(num)).all()


def test_images_that_are_judged_have_noise_by_name(data: TinyData) -> None:
    folder = {name: str(value) for name, value in data.train_flags.items()}

    def labels(**train: Any) -> list[torch.Tensor]:
        flags = VarTrainFlags(val_data_info_dict_path=str(data.test_info), **train)
        found = load_validation(DataFlags(**folder), (LARGE, SMALL), flags, CPU, lambda line: None)
        assert found is not None
        return [pair[1] for _, pair in found.pairs()]

    clean, noisy = torch.cat(labels()), torch.cat(labels(label_noise=10.0))
    assert torch.equal(noisy, torch.cat(labels(label_noise=10.0)))
    std = (noisy - clean).std() * HALF_RANGE_255
    assert abs(std - 10) < 4 * 10 / math.sqrt(2 * clean.numel())


def test_a_resumed_run_keeps_its_noise_and_the_test_tells_of_it(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    flags = {**flags_of(pipeline, "sr_var_train", tmp_path), "last_layer_type": "exp"}
    done("sr_var_train", words(flags, label_noise=5))
    again = {**flags, "resume_checkpoint": "auto", "max_step": 2}
    outcome = run("sr_var_train", words(again))
    assert outcome.code == EXIT_CHECKPOINT and "label_noise 5.0" in outcome.err
    done("sr_var_train", words(again, label_noise=5))
    test = {**pipeline.data.tested_flags, **pipeline.mean_net_flags, "log_dir": tmp_path / "log"}
    model = tmp_path / "save" / "model000002.pt"
    said = done("sr_var_test", words(test, model_path=model, output_dir=tmp_path / "out")).out
    assert "--label_noise 5" in said and "25 grey levels²" in said
    lines: list[str] = []
    say_label_noise({}, "of another tool", lines.append)
    assert lines == []


@pytest.mark.parametrize("script", ["sr_mean_train", "sr_var_train"])
@pytest.mark.parametrize("value", [-1, "inf", "nan"])
def test_impossible_noise_is_a_usage_error(
    pipeline: Pipeline, tmp_path: Path, script: str, value: object
) -> None:
    refused = (pipeline, script, tmp_path, EXIT_USAGE, f"--label_noise {float(value)}")
    assert_refused(*refused, label_noise=value)


def test_mean_training_refuses_another_noise(pipeline: Pipeline, tmp_path: Path) -> None:
    flags = flags_of(pipeline, "sr_mean_train", tmp_path)
    done("sr_mean_train", words(flags))
    again = {**flags, "resume_checkpoint": "auto", "max_step": 2, "label_noise": 5}
    outcome = run("sr_mean_train", words(again))
    assert outcome.code == EXIT_CHECKPOINT and "label_noise 0.0" in outcome.err
