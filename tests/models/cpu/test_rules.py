"""Which kernels a CPU has is said by its instructions, not by a clock."""

from __future__ import annotations

import pytest
import torch

from models.cpu.rules import (
    DIRECT,
    WINOGRAD,
    is_attention_by_products,
    is_channels_last,
    is_own_norm_faster,
    prefers_channels_last,
    usual_kernels,
)
from tests import cpus
from tests.models.nets import noise


@pytest.mark.parametrize(
    ("cpu", "kernels"),
    [
        (cpus.AVX2, WINOGRAD),
        (cpus.NEOVERSE, WINOGRAD),
        (cpus.ZEN_4, WINOGRAD),
        (cpus.SKYLAKE, DIRECT),
        (cpus.SAPPHIRE_RAPIDS, DIRECT),
    ],
)
def test_winograd_is_for_cpus_whose_products_are_slow(
    cpu: cpus.Cpu, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpu, monkeypatch)
    assert usual_kernels()[0] == kernels
    monkeypatch.setenv("WINOGRAD", "0")
    assert usual_kernels() == (DIRECT, "WINOGRAD=0")


def test_unknown_instructions_are_no_reason_for_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus.compute_on(cpus.ZEN_4, monkeypatch)
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert usual_kernels()[0] == DIRECT


def test_channels_last_is_for_wide_networks_and_those_without_norms() -> None:
    x = noise(1, 3, 8, 8)
    for value in (x, x.bfloat16()):
        assert [prefers_channels_last(value, width) for width in (32, 64)] == [False, True]
        assert prefers_channels_last(value)
    for other in (x.double(), x.half(), x.to("meta"), x[0]):
        assert not prefers_channels_last(other, 64)


@pytest.mark.parametrize(
    ("shape", "num_groups", "in_training", "else_"),
    [
        ((1, 64, 40, 40), 32, (False, False), (False, True)),
        ((16, 64, 32, 32), 32, (True, True), (False, True)),
        ((1, 64, 64, 64), 32, (True, True), (False, True)),
        ((1, 64, 64, 64), 8, (False, True), (False, True)),
        ((16, 64, 16, 16), 32, (False, False), (True, True)),
        ((16, 64, 16, 16), 8, (False, False), (False, False)),
        ((1, 192, 16, 16), 32, (False, False), (False, False)),
    ],
)
def test_own_norm_is_for_large_images_in_training_and_for_small_maps_else(
    shape: tuple[int, ...],
    num_groups: int,
    in_training: tuple[bool, bool],
    else_: tuple[bool, bool],
) -> None:
    x = torch.empty(shape)
    for is_training, expected in ((True, in_training), (False, else_)):
        with torch.set_grad_enabled(is_training):
            found = [is_own_norm_faster(one, num_groups) for one in (x, x.bfloat16())]
        assert tuple(found) == expected


def test_only_one_order_counts_as_channels_last() -> None:
    x = noise(2, 4, 3, 3)
    assert is_channels_last(x.to(memory_format=torch.channels_last))
    for other in (x, noise(2, 1, 3, 3).to(memory_format=torch.channels_last), x[0]):
        assert not is_channels_last(other)


@pytest.mark.parametrize(
    ("cpu", "is_by_products"),
    [
        (cpus.AVX2, False),
        (cpus.NEOVERSE, False),
        (cpus.ZEN_4, True),
        (cpus.SKYLAKE, False),
        (cpus.SAPPHIRE_RAPIDS, False),
    ],
)
def test_attention_by_products_is_for_bf16_without_tiles(
    cpu: cpus.Cpu, is_by_products: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpu, monkeypatch)
    query = torch.zeros(1, 2, 256, 4)
    assert is_attention_by_products(query.bfloat16()) == is_by_products
    for other in (query, query.half(), query.bfloat16().to("meta")):
        assert not is_attention_by_products(other)


def test_few_tokens_are_left_to_the_fused_kernel_unless_there_is_a_backward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpus.compute_on(cpus.ZEN_4, monkeypatch)
    query = torch.zeros(1, 2, 64, 4).bfloat16()
    assert not is_attention_by_products(query)
    query.requires_grad_()
    assert is_attention_by_products(query)
    with torch.no_grad():
        assert not is_attention_by_products(query)
