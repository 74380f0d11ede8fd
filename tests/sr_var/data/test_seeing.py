"""X is made where images are loaded, and is the same whoever loads them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator

import pytest
import torch

from ddpm.flags import DiffusionTrainFlags
from diffusion.timesteps import UniformSampler
from sr_var.data.pairs import Seeing, load_regression_data, rank_batches
from sr_var.ddpm_sr_utils import load_diffusion_data
from sr_var.degrade.language import Degradation
from sr_var.degrade.view import View
from sr_var.flags.scripts import DataFlags, MeanTrainFlags, TestDataFlags
from sr_var.mean_utils import regression_test_data
from tests import tiny
from tests.tiny import LARGE, SMALL, TinyData
from utils.images.listing import Entry
from utils.sizes import Size

CPU = torch.device("cpu")
ENTRIES = [Entry(name, y) for y, names in tiny.CLASSES.values() for name in names]
# on the processor alone; in part; with a mask beside X and levels that are drawn
MADE_THERE = ["poisson:30+jpeg:30", "blur:1+area+noise:5-50", "area&mask:0.2-0.8"]
MADE_HERE = ["area", "blur:1.2+area", "area+bits:4"]


def _view(text: str, net: str = "mean") -> View:
    made = Degradation.parse(text, LARGE // SMALL if "area" in text else 1, 3)
    small = LARGE if made.factor == 1 else SMALL
    return View.seeing((Size.of(LARGE), Size.of(small)), made, seed=3, net=net)


def _flags(data: TinyData, num_workers: int) -> DataFlags:
    return DataFlags(
        data_dir=str(data.data_dir),
        data_info_dict_path=str(data.train_info),
        num_workers=num_workers,
    )


def _say_nothing(line: str) -> None:
    pass


def _mean_inputs(data: TinyData, view: View, num_workers: int) -> Iterator[torch.Tensor]:
    train = MeanTrainFlags(batch_size=3, seed=5)
    of = load_regression_data(_flags(data, num_workers), view, train, CPU, _say_nothing)
    batches = of.batches(3)
    for _ in range(3):
        yield next(batches)[0]


def _diffusion_inputs(data: TinyData, view: View, num_workers: int) -> Iterator[torch.Tensor]:
    train = DiffusionTrainFlags(batch_size=3, seed=5)
    flags = _flags(data, num_workers)
    of = load_diffusion_data(flags, view, train, UniformSampler(10), CPU, _say_nothing)
    batches = of.batches(0)
    for _ in range(2):
        yield next(batches)[0].condition["low_res"]


def _test_inputs(data: TinyData, view: View, num_workers: int) -> Iterator[torch.Tensor]:
    flags = TestDataFlags(data_dir=str(data.data_dir), num_workers=num_workers)
    for low_res, _ in regression_test_data(rank_batches(ENTRIES, 3), flags, view.for_tests()):
        assert isinstance(low_res, torch.Tensor)
        yield low_res


WAYS = {"mean": _mean_inputs, "diffusion": _diffusion_inputs, "test": _test_inputs}


@pytest.mark.parametrize("text", MADE_THERE)
@pytest.mark.parametrize("way", WAYS)
def test_processes_that_load_make_the_same_x_bit_for_bit(
    tiny_data: TinyData, way: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = _view(text)
    wanted = list(WAYS[way](tiny_data, view, 0))
    main, plain = os.getpid(), Degradation.apply

    def elsewhere(*args: object) -> torch.Tensor:
        assert os.getpid() != main, "it was made in the process of the network"
        return plain(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(Degradation, "apply", elsewhere)
    for num_workers in (1, 2):
        found = list(WAYS[way](tiny_data, view, num_workers))
        assert len(found) == len(wanted)
        assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("text", [*MADE_THERE, *MADE_HERE])
def test_x_of_the_stream_is_that_of_its_place(tiny_data: TinyData, text: str) -> None:
    """As it was made on the device of the network before, of the same batch."""
    view = _view(text)
    flags, train = _flags(tiny_data, 0), MeanTrainFlags(batch_size=3, seed=5)
    low_res, high_res = next(load_regression_data(flags, view, train, CPU, _say_nothing).batches(3))
    assert torch.equal(low_res, view.x_of(high_res, [3, 4, 5]))


def test_what_takes_no_processor_is_made_on_the_device() -> None:
    assert all(Seeing.of(_view(text)) is None for text in MADE_HERE)
    assert Seeing.of(View.of_sizes((LARGE, SMALL))) is None


@pytest.mark.parametrize("text", MADE_THERE)
def test_processes_that_are_started_anew_can_be_told(text: str) -> None:
    seeing = Seeing.of(_view(text))
    assert seeing is not None
    assert pickle.loads(pickle.dumps(seeing)) == seeing
