"""Which precision a device can follow: a rule about its CPU, said where it is not the one asked."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import cpus
from tests.dist.ranks import run_ranks
from utils.flags.groups import Precision
from utils.fp16_util import computes_natively
from utils.loops.networks import chosen_precision, usable_precision

CPU = torch.device("cpu")
# fp16 and bf16: in forward passes alone, with the backward pass, too
KERNELS = {
    "AVX2": ((False, False), (False, False)),
    "Skylake": ((False, False), (False, False)),
    "Zen 4": ((False, False), (True, True)),
    "Sapphire Rapids": ((True, False), (True, True)),
    "Neoverse": ((True, False), (True, False)),
}
FP32, FP16, BF16 = Precision
# asked → frozen, with gradients through the frozen network, trained
FOLLOWED = {
    ("AVX2", FP16): (FP32, FP32, FP32),
    ("AVX2", BF16): (FP32, FP32, FP32),
    ("Skylake", FP16): (FP32, FP32, FP32),
    ("Skylake", BF16): (FP32, FP32, FP32),
    ("Zen 4", FP16): (FP32, FP32, BF16),
    ("Zen 4", BF16): (BF16, BF16, BF16),
    ("Sapphire Rapids", FP16): (FP16, FP32, BF16),
    ("Sapphire Rapids", BF16): (BF16, BF16, BF16),
    ("Neoverse", FP16): (FP16, FP32, FP32),
    ("Neoverse", BF16): (BF16, FP32, FP32),
}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_count_for_a_training_where_both_directions_have_them(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpus.ALL[name], monkeypatch)
    found = tuple(
        tuple(computes_natively(dtype, CPU, with_backward=is_both) for is_both in (False, True))
        for dtype in (torch.float16, torch.bfloat16)
    )
    assert found == KERNELS[name]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("with_backward", [False, True])
def test_without_its_library_a_cpu_has_no_16_bit_kernels_and_a_gpu_has_all(
    dtype: torch.dtype, with_backward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpus.SAPPHIRE_RAPIDS, monkeypatch)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not computes_natively(dtype, CPU, with_backward=with_backward)
    assert computes_natively(torch.float32, CPU, with_backward=with_backward)
    assert computes_natively(dtype, torch.device("cuda"), with_backward=with_backward)


@pytest.mark.parametrize(("cpu", "asked"), FOLLOWED, ids=str)
def test_the_precision_is_the_one_asked_for_or_the_nearest_that_does_not_crawl(
    cpu: str, asked: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpus.ALL[cpu], monkeypatch)
    said: list[str] = []
    found = [
        usable_precision(asked, said.append),
        usable_precision(asked, said.append, with_backward=True),
        usable_precision(asked, said.append, is_trained=True),
    ]
    wanted = FOLLOWED[cpu, asked]
    assert tuple(found) == wanted
    others = [precision for precision in wanted if precision is not asked]
    assert len(said) == len(others)
    for line, precision in zip(said, others, strict=True):
        assert line.startswith("notice: ") and str(asked) in line
        assert f"in {precision}" in line


def test_fp32_is_followed_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    cpus.compute_on(cpus.AVX2, monkeypatch)
    said: list[str] = []
    for is_trained in (False, True):
        assert usable_precision(FP32, said.append, is_trained=is_trained) is FP32
    assert not said


def choose_together(say: Callable[[Any], None]) -> None:
    """Tells the precision of a training whose ranks run on different CPUs."""
    rank = torch.distributed.get_rank()
    with pytest.MonkeyPatch.context() as monkeypatch:
        cpus.compute_on((cpus.ZEN_4, cpus.AVX2)[rank], monkeypatch)
        say(usable_precision(FP16, lambda line: None, is_trained=True).name)


@pytest.mark.dist
def test_ranks_on_different_cpus_train_in_a_precision_of_all() -> None:
    assert run_ranks(choose_together) == [["FP32"], ["FP32"]]


def test_the_flags_are_read_where_they_become_a_precision_and_nowhere_else() -> None:
    root = Path(__file__).parents[3]
    packages = ("models", "diffusion", "oracle", "ddpm", "sr_var", "noisy_label", "image_ddpm")
    files = [
        *root.glob("*.py"),
        *(p for name in (*packages, "utils") for p in root.glob(f"{name}/**/*.py")),
    ]
    readers = {
        str(path.relative_to(root))
        for path in files
        if re.search(r"\.(classifier_)?use_(fp16|bf16)\b", path.read_text())
    }
    # the last refuses both for those who make a network without a parser
    assert readers == {"utils/flags/groups.py", "image_ddpm/flags.py", "models/config.py"}


@pytest.mark.parametrize(("name", "best"), [("AVX2", FP32), ("Zen 4", BF16), ("Neoverse", BF16)])
def test_auto_is_bf16_where_that_is_fast(
    name: str, best: Precision, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpus.compute_on(cpus.ALL[name], monkeypatch)
    said: list[str] = []
    assert chosen_precision("auto", {"use_bf16": False}, said.append) is best
    assert len(said) == 1 and f"--precision auto: {best}" in said[0]


def test_a_precision_is_what_it_says_and_nothing_where_it_is_left_out() -> None:
    found = [chosen_precision(choice, {}, print) for choice in ("", "fp32", "fp16", "bf16")]
    assert found == [None, FP32, FP16, BF16]


@pytest.mark.parametrize(
    ("choice", "asked"),
    [
        ("fp32", {"use_bf16": True}),
        ("bf16", {"use_fp16": True}),
        ("bf16", {"use_bf16": False}),
        ("auto", {"use_bf16": True}),
    ],
)
def test_a_precision_that_is_given_twice_must_be_the_same(
    choice: str, asked: dict[str, bool]
) -> None:
    ((name, value),) = asked.items()
    with pytest.raises(ValueError, match=f"--{name} {value} and --precision {choice}"):
        chosen_precision(choice, asked, print)
    assert chosen_precision("bf16", {"use_fp16": False, "use_bf16": True}, print) is BF16
