"""Sampling loops never make the host wait for the device: run on a device without values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusion.samplers import SAMPLERS, SamplerOptions, sample_loop
from diffusion.types import ModelMeanType, ModelVarType
from tests.diffusion.chains import Chain


class DeviceOnly(TorchDispatchMode):
    """Fail on an operation that reads a value off the device or has a tensor elsewhere."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "item"), f"{name} makes the host wait"
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves((args, kwargs, result)):
            assert not isinstance(leaf, Tensor) or leaf.is_meta, f"{name} uses {leaf.device}"
        return result


class NoConstants(TorchFunctionMode):
    """Fail where a tensor is made from values on the host."""

    MAKERS = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        assert func not in self.MAKERS, f"{func.__name__} copies from the host"
        return func(*args, **(kwargs or {}))


def run_on_meta_device(options: SamplerOptions, var_type: ModelVarType, model: Any) -> Tensor:
    process = Chain(
        respacing="4", mean_type=ModelMeanType.EPSILON, var_type=var_type, rescale_timesteps=True
    ).build()
    x_T = torch.empty(2, 3, 4, 4, device="meta")
    noise = torch.empty_like(x_T)
    warm_up = torch.empty(2, 3 * num_parts(var_type), 4, 4, device="meta")
    # The tables go to the device once, at the first step of a process.
    sample_loop(process, lambda x, t: warm_up, x_T, lambda k: noise, options)
    with NoConstants(), DeviceOnly():
        return sample_loop(process, model, x_T, lambda k: noise, options)


def num_parts(var_type: ModelVarType) -> int:
    return 2 if var_type.is_learned() else 1


@pytest.mark.parametrize("var_type", list(ModelVarType))
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("is_guided", [False, True])
def test_no_step_copies_between_host_and_device(
    var_type: ModelVarType, sampler: str, is_guided: bool
) -> None:
    def model(x: Tensor, t: Tensor) -> Tensor:
        out = x * t.view(-1, 1, 1, 1)
        return torch.cat([out] * num_parts(var_type), dim=1)

    options = SamplerOptions(
        sampler=sampler,
        eta=0.5 if sampler == "ddim" else 0.0,
        cond_fn=(lambda x, t: x) if is_guided else None,
    )
    sample = run_on_meta_device(options, var_type, model)
    assert sample.is_meta and sample.shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    "culprit",
    [
        lambda x, t: x * torch.tensor(2.0),
        lambda x, t: x * torch.tensor(2.0, device=x.device),
        lambda x, t: x + torch.ones(1),
        lambda x, t: x.to("cpu"),
        lambda x, t: x * float(t[0]),
    ],
    ids=["host_constant", "constant", "host_tensor", "to_host", "item"],
)
def test_copy_inside_a_step_would_be_noticed(culprit: Callable[..., Tensor]) -> None:
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        run_on_meta_device(SamplerOptions(), ModelVarType.FIXED_SMALL, culprit)
