"""Mixed precision: fp32 master parameters behind a model of lower precision, and the loss scale.

Follows "Mixed Precision Training" (arXiv 1710.03740). Returns statistics and logs nothing. Nothing
here waits for the device: whether a step overflowed is decided, acted on and counted there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from utils.flags.training import ADAMW, MUON, SGD
from utils.optimizers import MOMENTS, MOMENTUM, create_optimizer

INITIAL_LG_LOSS_SCALE = 20.0
# below it even the smallest scale overflows: the run has diverged
MIN_LG_LOSS_SCALE = -10.0


class MixedPrecisionTrainer:
    """Optimises a model through fp32 master parameters with AdamW, Muon beside it, Adam or SGD.

    A parameter that is fp32 already is its own master. Where one is fp16 the loss is scaled by
    2^lg_loss_scale, which grows by `fp16_scale_growth` a step and drops by 1 on an overflow. A
    step whose gradient is not finite changes no parameter and no optimizer state.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        lr: float,
        weight_decay: float = 0.0,
        fp16_scale_growth: float = 1e-3,
        optimizer: str = ADAMW,
    ) -> None:
        self.model = model
        self.names = [name for name, p in model.named_parameters() if p.requires_grad]
        self._params = [p for p in model.parameters() if p.requires_grad]
        self.masters = [
            p if p.dtype == torch.float32 else torch.nn.Parameter(p.detach().float())
            for p in self._params
        ]
        self.has_loss_scale = any(p.dtype == torch.float16 for p in self._params)
        self._growth = fp16_scale_growth
        device = self._params[0].device
        lg_loss_scale = INITIAL_LG_LOSS_SCALE if self.has_loss_scale else 0.0
        self.lg_loss_scale = torch.tensor(lg_loss_scale, device=device)
        self.num_skipped = torch.zeros((), device=device)
        self.num_skipped_in_row = torch.zeros((), device=device)
        self._matrices = frozenset(self._positions_of_matrices() if optimizer == MUON else ())
        self._has_moments = optimizer != SGD
        # its steps take the overflow flag as a tensor, so that none waits for the device
        self.optimizer = create_optimizer(
            optimizer, self.masters, self._matrices, lr=lr, weight_decay=weight_decay
        )

    def _positions_of_matrices(self) -> Iterable[int]:
        """Which masters are weights of convolutions and linear layers: embeddings are not."""
        kinds = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
        weights = {id(m.weight) for m in self.model.modules() if isinstance(m, kinds)}
        return (i for i, param in enumerate(self._params) if id(param) in weights)

    def state_shapes(self) -> list[dict[str, torch.Size]]:
        """What the optimizer keeps of each master after its first step: name → shape."""

        def shapes(i: int, master: torch.Tensor) -> dict[str, torch.Size]:
            if i in self._matrices:
                return {MOMENTUM: master.flatten(1).shape}
            if not self._has_moments:
                return {MOMENTUM: master.shape}
            return {"step": torch.Size(), **dict.fromkeys(MOMENTS, master.shape)}

        return [shapes(i, master) for i, master in enumerate(self.masters)]

    def zero_grad(self) -> None:
        """Forget the gradients of the model and of the masters."""
        for parameter in (*self._params, *self.masters):
            parameter.grad = None

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradient of the scaled loss; not finite where the loss is not."""
        # a factor of 1, or NaN: a bad loss may have a finite gradient, or be one rank's alone
        scale = 1 + 0 * loss.detach()
        if self.has_loss_scale:
            scale = scale * torch.exp2(self.lg_loss_scale)
        (loss * scale).backward()  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def step(self, lr: float) -> dict[str, torch.Tensor]:
        """One optimizer step from the accumulated gradients.

        Returns:
            `grad_norm` (2-norm of the unscaled gradient) and `lg_loss_scale` before the step,
            as scalars on the device.
        """
        grads = self._unscaled_master_grads()
        grad_norm = global_norm(grads)
        is_bad = (~torch.isfinite(grad_norm)).float()
        statistics = {"grad_norm": grad_norm, "lg_loss_scale": self.lg_loss_scale.clone()}
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.found_inf = is_bad
        self.optimizer.step()
        self._copy_masters_to_model()
        self.num_skipped += is_bad
        self.num_skipped_in_row = (self.num_skipped_in_row + 1) * is_bad
        if self.has_loss_scale:
            self.lg_loss_scale += self._growth * (1 - is_bad) - is_bad
            self.lg_loss_scale.clamp_(min=MIN_LG_LOSS_SCALE)
        return statistics

    def param_norm(self) -> torch.Tensor:
        """2-norm of all master parameters, a scalar on the device."""
        return global_norm([master.detach() for master in self.masters])

    def _unscaled_master_grads(self) -> list[torch.Tensor]:
        for param, master in zip(self._params, self.masters, strict=True):
            if param.grad is None:  # an unused parameter counts as gradient zero
                param.grad = torch.zeros_like(param)
            if master is not param:
                master.grad = param.grad.float()
        grads = [master.grad for master in self.masters if master.grad is not None]
        if self.has_loss_scale:
            torch._foreach_mul_(grads, torch.exp2(-self.lg_loss_scale))
        return grads

    def _copy_masters_to_model(self) -> None:
        low = [(p, m) for p, m in zip(self._params, self.masters, strict=True) if p is not m]
        if low:
            torch._foreach_copy_([p for p, _ in low], [m for _, m in low])

    def state_dict_of(self, tensors: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The model's state_dict in fp32, with the given tensors in place of its parameters."""
        state: dict[str, torch.Tensor] = self.model.state_dict()
        state.update(zip(self.names, tensors, strict=True))
        return {
            name: value.detach().float() if value.is_floating_point() else value.detach()
            for name, value in state.items()
        }

    def model_state_dict(self) -> dict[str, torch.Tensor]:
        """The fp32 state_dict that goes into `modelNNNNNN.pt`."""
        return self.state_dict_of(self.masters)

    @torch.no_grad()
    def take_masters_from(self, state: dict[str, torch.Tensor]) -> None:
        """Set masters and model from an fp32 state_dict (already checked against the model)."""
        for name, master in zip(self.names, self.masters, strict=True):
            master.copy_(state[name])
        self._copy_masters_to_model()
        own = self.model.state_dict()
        for name in own.keys() - set(self.names):  # buffers and frozen parameters
            own[name].copy_(state[name])

    def scale_state(self) -> dict[str, float]:
        """What a checkpoint must remember besides parameters and optimizer."""
        counts = {
            "num_skipped": float(self.num_skipped),
            "num_skipped_in_row": float(self.num_skipped_in_row),
        }
        # the 0 of other precisions would be far too small, should the run go on in fp16
        if not self.has_loss_scale:
            return counts
        return {"lg_loss_scale": float(self.lg_loss_scale), **counts}

    def load_scale_state(self, state: dict[str, float]) -> None:
        """The inverse of `scale_state`; missing entries keep their start values."""
        for name in self.scale_state():
            if name in state:
                getattr(self, name).fill_(state[name])


def global_norm(tensors: list[torch.Tensor]) -> torch.Tensor:
    """2-norm of all tensors together, a scalar on their device."""
    norm: torch.Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm


def computes_natively(
    dtype: torch.dtype, device: torch.device, *, with_backward: bool = False
) -> bool:
    """Whether a device has kernels for a 16-bit type; without them convolutions crawl.

    A rule about the CPU and no timing, so that the same command computes the same. What its
    library calls supported is true of forward passes alone: no CPU has a backward pass in fp16,
    and AVX-512 without bf16 instructions emulates bf16. A convolution of 64 channels, 64×64, batch
    8, on one core with those instructions takes, forward and with the backward pass, 34 and 92 ms
    in fp32, 14 and 44 ms in bf16 (emulated 67 and 203), and 3782 and 4273 ms in fp16; a CPU with
    fp16 instructions 15 and 3226 ms.

    Args:
        dtype: the type; those of 32 bits are always there.
        device: where to compute; GPUs have all types.
        with_backward: whether gradients are taken, too. Counted only where it was measured: on a
            CPU bf16 with AVX-512's instructions for it.
    """
    if device.type != "cpu" or dtype not in (torch.float16, torch.bfloat16):
        return True
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if dtype == torch.float16:
        return not with_backward and bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    has_instructions = torch.cpu._is_avx512_bf16_supported()
    is_emulated = torch.cpu._is_avx512_supported() and not has_instructions
    is_fast = has_instructions if with_backward else not is_emulated
    return is_fast and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def trains_in_bf16() -> bool:
    """Whether this CPU has bf16 arithmetic for a training (`computes_natively`)."""
    return computes_natively(torch.bfloat16, torch.device("cpu"), with_backward=True)
