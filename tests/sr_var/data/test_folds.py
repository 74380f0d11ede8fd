"""Folds by name, one net for each image, what leaks without them, and refused combinations."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sr_var.base_dataset import load_entries
from sr_var.data.folds import CrossFit, FoldedInput, FoldedMean, measure_leakage, split_residuals
from sr_var.data.pairs import load_regression_data
from sr_var.flags.scripts import DataFlags, MeanNetFlags, MeanTrainFlags
from sr_var.mean_utils import SRMeanTrainLoop
from sr_var.script_util import mean_net_paths
from sr_var.var_utils import SRVarTrainLoop, with_mean
from tests.tiny import LARGE, SMALL, TinyData
from utils.images.listing import Entry
from utils.process.errors import CheckpointError, DataError

ENTRIES = [Entry(f"class{i % 7}/image_{i}", i % 7, f"class{i % 7}") for i in range(600)]
CPU = torch.device("cpu")


class Constant(nn.Module):
    """The same value for every pixel."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor) -> Tensor:
        return self.value.expand(len(x), 3, *x.shape[2:]) + 0 * x[:, :3]


def test_folds_depend_on_the_name_alone_and_are_about_equal() -> None:
    cross_fit = CrossFit(3, "image")
    folds = {entry.name: cross_fit.fold_of(entry) for entry in ENTRIES}
    again = {entry.name: cross_fit.fold_of(entry) for entry in ENTRIES[::-3]}
    assert again == {name: folds[name] for name in again}
    counts = [list(folds.values()).count(fold) for fold in range(3)]
    assert min(counts) > 150 and sum(counts) == 600  # binomial: 200 ± 11.5


def test_folds_by_class_keep_a_class_together() -> None:
    folds: dict[str, set[int]] = {}
    for entry in ENTRIES:
        folds.setdefault(entry.group, set()).add(CrossFit(3, "class").fold_of(entry))
    assert len(folds) == 7 and all(len(found) == 1 for found in folds.values())
    assert len(set.union(*folds.values())) > 1


@pytest.mark.parametrize("by", ["image", "class"])
def test_nets_that_leave_a_fold_out_share_the_images_among_them(by: str) -> None:
    seen = [
        {entry.name for entry in CrossFit(4, by, left_out=fold).kept(ENTRIES)} for fold in range(4)
    ]
    for entry in ENTRIES:
        fold = CrossFit(4, by).fold_of(entry)
        assert [entry.name not in names for names in seen] == [k == fold for k in range(4)]


def test_fold_that_holds_everything_leaves_nothing_to_train_on() -> None:
    only = [Entry("a", 0, "one"), Entry("b", 0, "one")]
    fold = CrossFit(2, "class").fold_of(only[0])
    with pytest.raises(DataError, match=r"2 images .*fold"):
        CrossFit(2, "class", left_out=fold).kept(only)


def test_group_of_an_entry_is_its_key_in_the_info_dict(tiny_data: TinyData) -> None:
    entries = load_entries(str(tiny_data.train_info), str(tiny_data.data_dir))
    assert {entry.group for entry in entries} == {"n01440764", "n01443537", "n01484850"}
    assert all(entry.name.startswith(entry.group) for entry in entries)


def test_every_image_of_a_batch_has_the_mean_of_the_net_of_its_fold() -> None:
    model = FoldedMean([Constant(0.1), Constant(0.2), Constant(0.4)])
    x, fold = torch.zeros(5, 3, 4, 4), torch.tensor([2, 0, 0, 1, 2])
    _, mean = with_mean(model, FoldedInput(x, fold), (4, 4))
    expected = torch.tensor([0.4, 0.1, 0.1, 0.2, 0.4])[:, None, None, None].expand_as(mean)
    assert torch.equal(mean, expected)
    _, average = with_mean(model, x, (4, 4))  # a test image has no fold
    torch.testing.assert_close(average, torch.full_like(average, 0.7 / 3))


def test_gradient_of_a_cross_fitted_batch_does_not_depend_on_microbatch() -> None:
    generator = torch.Generator().manual_seed(0)
    low_res = torch.rand(5, 3, 4, 4, generator=generator)
    batch = FoldedInput(low_res, torch.tensor([0, 1, 1, 0, 1]))
    label = torch.rand(5, 3, 4, 4, generator=generator)
    gradients = []
    for microbatch in (-1, 2):
        model = Constant(0.3)
        loop = SRVarTrainLoop(
            model=model,
            mean_model=FoldedMean([Constant(0.0), Constant(0.5)]),
            data=[(batch, label)],
            batch_size=5,
            microbatch=microbatch,
        )
        loop._forward_backward(batch, label)
        gradients.append(model.value.grad)
    torch.testing.assert_close(*gradients)
    residual = label - torch.tensor([0.0, 0.5, 0.5, 0.0, 0.5])[:, None, None, None]
    expected = 2 * (0.3 - residual.square()).mean()
    torch.testing.assert_close(gradients[0], expected)


def test_batches_carry_the_folds_of_their_images(tiny_data: TinyData) -> None:
    flags = DataFlags(
        data_dir=str(tiny_data.data_dir), data_info_dict_path=str(tiny_data.train_info)
    )
    lines: list[str] = []
    args: tuple[Any, ...] = (flags, (LARGE, SMALL), MeanTrainFlags(batch_size=7), CPU, lines.append)
    plain, plain_label = next(load_regression_data(*args).batches(0))
    batch, label = next(load_regression_data(*args, CrossFit(2, "image")).batches(0))
    assert torch.equal(batch.low_res, plain) and torch.equal(label, plain_label)
    assert any("2 folds" in line for line in lines)
    entries = load_entries(str(tiny_data.train_info), str(tiny_data.data_dir))
    folds = sorted(map(CrossFit(2, "image").fold_of, entries))
    assert sorted(batch.fold.tolist()) == folds and set(folds) == {0, 1}


def test_data_of_a_mean_net_lack_the_fold_that_it_leaves_out(tiny_data: TinyData) -> None:
    flags = DataFlags(
        data_dir=str(tiny_data.data_dir), data_info_dict_path=str(tiny_data.train_info)
    )
    entries = load_entries(str(tiny_data.train_info), str(tiny_data.data_dir))
    num_kept = len(CrossFit(2, "image", left_out=0).kept(entries))
    assert 0 < num_kept < 7
    for size, is_refused in ((num_kept, False), (num_kept + 1, True)):
        args: tuple[Any, ...] = (
            flags,
            (LARGE, SMALL),
            MeanTrainFlags(batch_size=size),
            CPU,
            lambda line: None,
        )
        if is_refused:
            with pytest.raises(DataError, match=f"has {num_kept}"):
                load_regression_data(*args, CrossFit(2, "image", left_out=0))
        else:
            batch, _ = next(
                load_regression_data(*args, CrossFit(2, "image", left_out=0)).batches(0)
            )
            assert isinstance(batch, Tensor) and len(batch) == num_kept


def test_leakage_compares_the_nets_that_saw_an_image_with_the_one_that_did_not() -> None:
    squared = torch.tensor([[9.0, 1.0, 3.0], [2.0, 8.0, 4.0], [1.0, 1.0, 10.0]])
    in_fold, out_of_fold = split_residuals(squared, torch.tensor([0, 1, 2]))
    assert in_fold.item() == pytest.approx((2 + 3 + 1) / 3)
    assert out_of_fold.item() == pytest.approx(9.0)


def test_nets_that_remember_their_images_leak_all_of_the_noise() -> None:
    """Means of n draws of unit variance: in-fold (n−1)/n, out-of-fold (n+1)/n on average.

    Two nets, each the exact average of the n draws that it saw, for one input.
    """
    n, generator = 4, torch.Generator().manual_seed(0)
    draws = torch.randn(2, n, 3, 64, 64, generator=generator, dtype=torch.float64)

    class Average(nn.Module):
        def __init__(self, value: Tensor) -> None:
            super().__init__()
            self.value = value

        def forward(self, x: Tensor) -> Tensor:
            return self.value.expand_as(x)

    model = FoldedMean([Average(draws[1].mean(dim=0)), Average(draws[0].mean(dim=0))])
    batches = [
        (FoldedInput(torch.zeros_like(draws[k]), torch.full((n,), k)), draws[k]) for k in range(2)
    ]
    found = measure_leakage(model, batches, 2 * n, CPU)
    assert found.num_images == 2 * n
    assert found.in_fold / 127.5**2 == pytest.approx((n - 1) / n, rel=0.02)
    assert found.out_of_fold / 127.5**2 == pytest.approx((n + 1) / n, rel=0.02)
    assert found.ratio == pytest.approx((n - 1) / (n + 1), rel=0.02)


@pytest.mark.parametrize(
    ("stored", "part"),
    [
        ({"position": 8}, "all images"),
        ({"cross_fit": None}, "all images"),
        ({"cross_fit": {"num_folds": 3, "by": "image", "left_out": 2}}, "left out"),
        ({"cross_fit": {"num_folds": 4, "by": "image", "left_out": 1}}, "'num_folds': 4"),
        ({"cross_fit": {"num_folds": 3, "by": "class", "left_out": 1}}, "--fold_by image"),
    ],
)
def test_net_that_has_seen_its_fold_is_refused(stored: dict[str, Any], part: str) -> None:
    with pytest.raises(CheckpointError, match="fold 1") as caught:
        CrossFit(3, "image").require_unseen(1, "m.pt", stored)
    assert part in str(caught.value)


def test_net_that_left_its_fold_out_is_taken_and_one_of_another_tool_too() -> None:
    def is_taken(state: dict[str, Any]) -> bool:
        with contextlib.suppress(CheckpointError):
            CrossFit(3, "class").require_unseen(1, "m.pt", state)
            return True
        return False

    assert is_taken({"cross_fit": CrossFit(3, "class", 1).record()})
    assert is_taken({})  # nothing can be known of it
    assert not is_taken({"cross_fit": CrossFit(3, "class", 2).record()})


def test_pattern_of_the_mean_nets_and_the_number_of_folds_go_together() -> None:
    cross_fit = CrossFit(2, "image")
    flags = MeanNetFlags(mean_model_path="run_{fold}/model000009.pt")
    paths = ["run_0/model000009.pt", "run_1/model000009.pt"]
    assert mean_net_paths(flags, cross_fit) == paths
    with pytest.raises(ValueError, match="--cross_fit K"):
        mean_net_paths(flags, None)
    with pytest.raises(ValueError, match=r"\{fold\}"):
        mean_net_paths(MeanNetFlags(mean_model_path="model000009.pt"), cross_fit)


def _train(folder: Path, loop_class: Any, max_step: int, **settings: Any) -> None:
    batch = torch.zeros(2, 3, 4, 4)
    loop_class(
        model=Constant(0.1),
        data=[(batch, batch + 0.5)],
        model_save_dir=str(folder),
        resume_checkpoint="auto",
        max_step=max_step,
        batch_size=2,
        **settings,
    ).run_loop()


def test_training_goes_on_with_the_folds_it_began_with_only(tmp_path: Path) -> None:
    begun = {"cross_fit": CrossFit(2, "image", left_out=0)}
    _train(tmp_path, SRMeanTrainLoop, 1, **begun)
    for other in (None, CrossFit(2, "image", left_out=1), CrossFit(2, "class", left_out=0)):
        with pytest.raises(CheckpointError, match="cross_fit"):
            _train(tmp_path, SRMeanTrainLoop, 2, cross_fit=other)
    _train(tmp_path, SRMeanTrainLoop, 2, **begun)


def test_training_goes_on_with_the_loss_it_began_with_only(tmp_path: Path) -> None:
    begun = {"mean_model": Constant(0.0), "loss": "itakura_saito"}
    _train(tmp_path, SRVarTrainLoop, 1, **begun)
    with pytest.raises(CheckpointError, match=r"'itakura_saito'.*'squared_error'"):
        _train(tmp_path, SRVarTrainLoop, 2, mean_model=Constant(0.0))
    _train(tmp_path, SRVarTrainLoop, 2, **begun)
