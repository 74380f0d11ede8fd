"""Mixed precision: what reaches the optimizer is the fp32 gradient, or nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.utils.training_loops import ConvNet, batch_of, relative_error
from utils.flags.training import ADAM, ADAMW, MUON, SGD
from utils.fp16_util import (
    INITIAL_LG_LOSS_SCALE,
    MIN_LG_LOSS_SCALE,
    MixedPrecisionTrainer,
    global_norm,
)
from utils.loops.state import WeightAverages

SCALE = 10.0
LOW = [torch.float16, torch.bfloat16]


def _trainer(dtype: torch.dtype, *, lg_loss_scale: float = SCALE, **rest: Any) -> Any:
    model = ConvNet(dtype=dtype)
    trainer = MixedPrecisionTrainer(model, lr=1e-2, **rest)
    assert trainer.has_loss_scale is (dtype == torch.float16)
    if trainer.has_loss_scale:
        trainer.lg_loss_scale.fill_(lg_loss_scale)
    return trainer


def _step(trainer: Any, factor: float = 1.0, lr: float = 1e-2) -> dict[str, torch.Tensor]:
    x, y = batch_of(4)
    trainer.zero_grad()
    trainer.backward(factor * torch.nn.functional.mse_loss(trainer.model(x).float(), y))
    statistics: dict[str, torch.Tensor] = trainer.step(lr)
    return statistics


def _snapshot(trainer: Any) -> dict[str, Any]:
    state = {
        "masters": trainer.masters,
        "params": list(trainer.model.parameters()),
        "optimizer": trainer.optimizer.state_dict()["state"],
    }
    return copy.deepcopy(state)


def _assert_equal(one: Any, other: Any) -> None:
    assert all(map(torch.equal, one["masters"], other["masters"]))
    assert all(map(torch.equal, one["params"], other["params"]))
    assert one["optimizer"].keys() == other["optimizer"].keys()
    for key, entry in one["optimizer"].items():
        assert all(torch.equal(entry[name], other["optimizer"][key][name]) for name in entry)


# ---- gradients


@pytest.mark.parametrize("lg_loss_scale", [0.0, 5.0, SCALE])
def test_gradients_of_all_parameters_are_unscaled_in_fp16(lg_loss_scale: float) -> None:
    trainer = _trainer(torch.float16, lg_loss_scale=lg_loss_scale)
    truth = MixedPrecisionTrainer(ConvNet(), lr=1e-2)
    statistics, expected = _step(trainer), _step(truth)
    for name, found, wanted in zip(truth.names, trainer.masters, truth.masters, strict=True):
        # fp16 carries 11 bits
        assert found.grad.norm() == pytest.approx(float(wanted.grad.norm()), rel=5e-3), name
    assert statistics["grad_norm"] == pytest.approx(float(expected["grad_norm"]), rel=5e-3)


def test_update_does_not_depend_on_the_loss_scale() -> None:
    runs = [_trainer(torch.float16, lg_loss_scale=scale) for scale in (3.0, 8.0)]
    for trainer in runs:
        _step(trainer)
    assert relative_error(runs[0].masters, runs[1].masters) < 1e-3


def test_parameters_in_fp32_within_an_fp16_model_are_unscaled_once() -> None:
    model = ConvNet(dtype=torch.float16)
    model.last.float()
    model.last.register_forward_pre_hook(lambda module, args: (args[0].float(),))
    trainer = MixedPrecisionTrainer(model, lr=1e-2)
    trainer.lg_loss_scale.fill_(SCALE)
    truth = MixedPrecisionTrainer(ConvNet(), lr=1e-2)
    _step(trainer)
    _step(truth)
    grads = [[master.grad for master in run.masters] for run in (trainer, truth)]
    assert relative_error(grads[0], grads[1]) < 5e-3
    assert trainer.masters[-1] is model.last.bias


def test_unused_parameter_counts_as_gradient_zero() -> None:
    model = ConvNet()
    model.spare = torch.nn.Parameter(torch.ones(2))
    trainer = MixedPrecisionTrainer(model, lr=1e-2)
    _step(trainer)
    assert torch.equal(model.spare, torch.ones(2))


def test_global_norm_is_that_of_one_long_vector() -> None:
    tensors = [torch.tensor([[3.0]]), torch.tensor([4.0, 12.0])]
    assert global_norm(tensors) == 13


# ---- steps


@pytest.mark.parametrize("optimizer", [ADAMW, MUON, ADAM, SGD])
@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_model_parameters_are_the_rounded_masters_after_a_step(
    dtype: torch.dtype, optimizer: str
) -> None:
    trainer = _trainer(dtype, optimizer=optimizer)
    for _ in range(3):
        _step(trainer)
        for param, master in zip(trainer.model.parameters(), trainer.masters, strict=True):
            assert master.dtype == torch.float32 and param.dtype == dtype
            assert torch.equal(param, master.to(dtype))


def test_steps_too_small_for_the_low_precision_add_up_in_the_masters() -> None:
    trainer = _trainer(torch.bfloat16)
    before = _snapshot(trainer)
    for _ in range(10):
        _step(trainer, lr=1e-6)
    assert relative_error(trainer.masters, before["masters"]) > 1e-6
    assert relative_error(trainer.masters, before["masters"]) < 1e-3


@pytest.mark.parametrize("optimizer", [ADAMW, MUON, ADAM, SGD])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
@pytest.mark.parametrize("num_good", [0, 2])
def test_overflow_changes_nothing_and_lowers_the_scale_by_1(
    num_good: int, weight_decay: float, optimizer: str
) -> None:
    trainer = _trainer(torch.float16, weight_decay=weight_decay, optimizer=optimizer)
    for _ in range(num_good):
        _step(trainer)
    before, scale = _snapshot(trainer), float(trainer.lg_loss_scale)
    statistics = _step(trainer, factor=1e6)
    assert not torch.isfinite(statistics["grad_norm"])
    assert trainer.lg_loss_scale == pytest.approx(scale - 1)
    assert trainer.num_skipped == trainer.num_skipped_in_row == 1
    after = _snapshot(trainer)
    if num_good:
        _assert_equal(after, before)
    else:  # most optimizers make their state at the first step, whatever happens in it
        moments = [value for entry in after["optimizer"].values() for value in entry.values()]
        assert all(torch.count_nonzero(moment) == 0 for moment in moments)
        _assert_equal({**after, "optimizer": {}}, {**before, "optimizer": {}})


@pytest.mark.parametrize("optimizer", [ADAMW, MUON, ADAM, SGD])
def test_step_after_an_overflow_is_as_if_it_had_not_happened(optimizer: str) -> None:
    disturbed, truth = (_trainer(torch.float16, optimizer=optimizer) for _ in range(2))
    _step(disturbed, factor=1e6)
    disturbed.lg_loss_scale.fill_(SCALE)
    _step(disturbed)
    _step(truth)
    _assert_equal(_snapshot(disturbed), _snapshot(truth))
    assert disturbed.num_skipped == 1 and disturbed.num_skipped_in_row == 0


@pytest.mark.parametrize("growth", [1e-3, 0.5])
def test_scale_grows_by_fp16_scale_growth_on_a_good_step(growth: float) -> None:
    trainer = _trainer(torch.float16, fp16_scale_growth=growth)
    statistics = _step(trainer)
    assert statistics["lg_loss_scale"] == SCALE
    assert trainer.lg_loss_scale == pytest.approx(SCALE + growth)


def test_scale_starts_high_and_does_not_fall_below_the_floor() -> None:
    trainer = MixedPrecisionTrainer(ConvNet(dtype=torch.float16), lr=1e-2)
    assert trainer.lg_loss_scale == INITIAL_LG_LOSS_SCALE
    for _ in range(60):
        _step(trainer, factor=float("inf"))
    assert trainer.lg_loss_scale == MIN_LG_LOSS_SCALE
    assert trainer.num_skipped_in_row == 60


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_scale_is_for_fp16_alone(dtype: torch.dtype) -> None:
    trainer = _trainer(dtype)
    statistics = _step(trainer)
    _step(trainer, factor=float("nan"))
    assert statistics["lg_loss_scale"] == trainer.lg_loss_scale == 0
    assert "lg_loss_scale" not in trainer.scale_state()


@pytest.mark.parametrize("optimizer", [ADAMW, MUON, ADAM, SGD])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_nan_gradient_changes_nothing_in_other_precisions_either(
    dtype: torch.dtype, optimizer: str
) -> None:
    trainer = _trainer(dtype, optimizer=optimizer)
    _step(trainer)
    before = _snapshot(trainer)
    _step(trainer, factor=float("nan"))
    _assert_equal(_snapshot(trainer), before)
    assert trainer.num_skipped == 1


# ---- Muon


class _Mixed(torch.nn.Module):
    """Parameters of every kind: 4, 4, 2, 2 and 1 axes, a bias and a table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(2, 4, 3)
        self.upwards = torch.nn.ConvTranspose2d(4, 2, 3)
        self.linear = torch.nn.Linear(4, 6, bias=False)
        self.table = torch.nn.Embedding(5, 4)
        self.norm = torch.nn.GroupNorm(2, 4)


def _with_gradients(optimizer: str, order: torch.memory_format) -> MixedPrecisionTrainer:
    model = _Mixed()
    model.to(memory_format=order)  # type: ignore[call-overload]
    trainer = MixedPrecisionTrainer(model, lr=1e-2, weight_decay=0.1, optimizer=optimizer)
    for i in range(2):
        torch.manual_seed(i)
        for parameter in model.parameters():
            parameter.grad = torch.empty_like(parameter).copy_(torch.randn(parameter.shape))
        trainer.step(1e-2 / (i + 1))
    return trainer


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=str)
def test_muon_has_convolutions_and_linear_layers_and_adamw_the_rest(
    order: torch.memory_format,
) -> None:
    found, adamw = (_with_gradients(optimizer, order) for optimizer in (MUON, ADAMW))
    expected = dict(_Mixed().named_parameters())
    flat = [
        torch.nn.Parameter(expected[name].detach().flatten(1).clone())
        for name in ("conv.weight", "linear.weight")
    ]
    muon = torch.optim.Muon(flat, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for i in range(2):
        torch.manual_seed(i)
        grads = {name: torch.randn(parameter.shape) for name, parameter in expected.items()}
        flat[0].grad, flat[1].grad = grads["conv.weight"].flatten(1), grads["linear.weight"]
        muon.param_groups[0]["lr"] = 1e-2 / (i + 1)
        muon.step()  # type: ignore[no-untyped-call]
    wanted = {name: value.detach() for name, value in adamw.model.named_parameters()}
    wanted["conv.weight"] = flat[0].detach().view_as(expected["conv.weight"])
    wanted["linear.weight"] = flat[1].detach()
    for name, parameter in found.model.named_parameters():
        assert torch.equal(parameter, wanted[name]), name


def test_state_of_both_is_one_by_position() -> None:
    first = _with_gradients(MUON, torch.contiguous_format)
    content = copy.deepcopy(first.optimizer.state_dict())
    shapes = [{k: v.shape for k, v in entry.items()} for entry in content["state"].values()]
    assert list(content["state"]) == list(range(len(first.masters)))
    assert shapes == first.state_shapes()
    second = MixedPrecisionTrainer(_Mixed(), lr=1e-2, optimizer=MUON)
    second.optimizer.load_state_dict(content)
    again = second.optimizer.state_dict()["state"]
    for key, entry in content["state"].items():
        assert all(torch.equal(value, again[key][name]) for name, value in entry.items())
    assert {group["weight_decay"] for group in second.optimizer.param_groups} == {0.0}


@pytest.mark.parametrize("is_matrix", [True, False])
def test_muon_trains_a_net_with_matrices_alone_or_without_any(is_matrix: bool) -> None:
    model = torch.nn.Linear(3, 2, bias=False) if is_matrix else torch.nn.LayerNorm(3)
    trainer = MixedPrecisionTrainer(model, lr=1e-2, optimizer=MUON)
    before = model.weight.clone()
    trainer.backward((model(torch.randn(4, 3)) ** 2).sum())
    trainer.step(1e-2)
    assert not torch.equal(model.weight, before)
    trainer.optimizer.load_state_dict(trainer.optimizer.state_dict())


class _NoWaiting(TorchDispatchMode):
    """Refuses what reads a value back from the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name != "_local_scalar_dense", f"{name} makes the host wait"
        return func(*args, **(kwargs or {}))


def test_reading_a_value_back_would_be_noticed() -> None:
    with pytest.raises(AssertionError, match="makes the host wait"), _NoWaiting():
        torch.ones(1).item()


@pytest.mark.parametrize("optimizer", [ADAMW, MUON, ADAM, SGD])
def test_a_step_does_not_wait_for_the_device(optimizer: str) -> None:
    trainer = _trainer(torch.float16, weight_decay=0.1, optimizer=optimizer)
    for factor in (1.0, 1e6):
        _step(trainer)
        trainer.backward(factor * trainer.model(batch_of(4)[0]).float().sum())
        with _NoWaiting():
            trainer.step(1e-2)


@pytest.mark.parametrize("optimizer", [ADAM, SGD])
def test_adam_and_sgd_are_those_of_torch(optimizer: str) -> None:
    trainer = _trainer(torch.float32, weight_decay=0.1, optimizer=optimizer)
    copies = [torch.nn.Parameter(master.detach().clone()) for master in trainer.masters]
    plain: torch.optim.Optimizer = torch.optim.Adam(copies, lr=1e-2, weight_decay=0.1)
    if optimizer == SGD:
        plain = torch.optim.SGD(copies, lr=1e-2, weight_decay=0.1, momentum=0.9)
    for _ in range(4):
        _step(trainer)
        for copied, master in zip(copies, trainer.masters, strict=True):
            copied.grad = master.grad.clone()  # of this step, which it leaves
        plain.step()
    assert relative_error(trainer.masters, copies) < 1e-6


def test_torch_without_muon_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.optim, "Muon")
    MixedPrecisionTrainer(ConvNet(), lr=1e-2)
    with pytest.raises(ValueError, match=r"--optimizer muon .*torch \d"):
        MixedPrecisionTrainer(ConvNet(), lr=1e-2, optimizer=MUON)


# ---- what a checkpoint holds


@pytest.mark.parametrize("dtype", [torch.float32, *LOW], ids=str)
def test_state_dict_is_fp32_and_comes_back_exactly(dtype: torch.dtype) -> None:
    first, second = _trainer(dtype), _trainer(dtype)
    _step(first)
    state = first.model_state_dict()
    assert list(state) == list(first.model.state_dict())
    assert {value.dtype for value in state.values()} == {torch.float32}
    second.take_masters_from(state)
    assert all(map(torch.equal, first.masters, second.masters))
    assert all(map(torch.equal, first.model.parameters(), second.model.parameters()))


def test_frozen_parameters_are_in_the_state_dict_and_stay_as_they_are() -> None:
    model = ConvNet()
    model.first.weight.requires_grad_(False)
    before = model.first.weight.clone()
    trainer = MixedPrecisionTrainer(model, lr=1e-2)
    _step(trainer)
    assert torch.equal(model.first.weight, before) and len(trainer.masters) == 3
    assert torch.equal(trainer.model_state_dict()["first.weight"], before)


def test_average_is_the_exponential_one_in_fp32() -> None:
    trainer = _trainer(torch.bfloat16)
    rates = [0.5, 0.9]
    averages = WeightAverages(rates, trainer.masters)
    expected = {
        str(rate): [master.detach().double() for master in trainer.masters] for rate in rates
    }
    for _ in range(4):
        _step(trainer)
        averages.update(trainer.masters)
        for rate in rates:
            pairs = zip(expected[str(rate)], trainer.masters, strict=True)
            expected[str(rate)] = [rate * old + (1 - rate) * new.double() for old, new in pairs]
    found = dict(averages.items())
    assert found.keys() == expected.keys()
    for rate, tensors in found.items():
        assert {tensor.dtype for tensor in tensors} == {torch.float32}
        assert relative_error(tensors, expected[rate]) < 1e-6
