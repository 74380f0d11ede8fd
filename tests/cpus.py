"""CPUs by what their library says of them, so that a test meets the same one on every machine."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch


@dataclass(frozen=True)
class Cpu:
    """The answers that decide about 16-bit types.

    Attributes:
        fp16: the library's word on fp16.
        bf16: the same on bf16.
        avx512: whether there is AVX-512.
        avx512_bf16: whether it has instructions for bf16.
        avx_vnni: whether it has those of AVX-VNNI.
        amx_tile: whether it has AMX.
    """

    fp16: bool = False
    bf16: bool = False
    avx512: bool = False
    avx512_bf16: bool = False
    avx_vnni: bool = False
    amx_tile: bool = False


AVX2 = Cpu()
SKYLAKE = Cpu(bf16=True, avx512=True)  # emulates bf16
ZEN_4 = Cpu(bf16=True, avx512=True, avx512_bf16=True)
SAPPHIRE_RAPIDS = Cpu(
    fp16=True, bf16=True, avx512=True, avx512_bf16=True, avx_vnni=True, amx_tile=True
)
NEOVERSE = Cpu(fp16=True, bf16=True)
ALL = {
    "AVX2": AVX2,
    "Skylake": SKYLAKE,
    "Zen 4": ZEN_4,
    "Sapphire Rapids": SAPPHIRE_RAPIDS,
    "Neoverse": NEOVERSE,
}


def compute_on(cpu: Cpu, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the test ends there is no GPU, and this CPU; its kernels stay those of the machine."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: cpu.fp16)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: cpu.bf16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: cpu.avx512)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu.avx512_bf16)
    known = {"avx_vnni": cpu.avx_vnni, "amx_tile": cpu.amx_tile}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
