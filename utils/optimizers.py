"""Adam, AdamW and SGD of a training, and Muon with AdamW beside it.

Steps are torch's own, in its functional form. Its classes would import the compiler of networks
with the first optimizer (torch 2.13: 1.1 s of an EPYC's core), whether anything is compiled or not.
State and options have the names and the order of `torch.optim`, so that files are the same.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from utils.flags.training import ADAM, ADAMW, MUON, SGD

SGD_MOMENTUM = 0.9
# of Adam: where it begins to forget, and what keeps it from a division by 0
_BETAS, _EPSILON = (0.9, 0.999), 1e-8
_STEP, MOMENTS, MOMENTUM = "step", ("exp_avg", "exp_avg_sq"), "momentum_buffer"


class Optimizer(ABC):
    """Parameters of one group of options, and what is remembered of each.

    Attributes:
        param_groups: the options, to be changed in place; one group.
        state: of each parameter that has had a step.
        found_inf: a scalar on the device; where it is 1, a step changes nothing. None: 0.
    """

    def __init__(self, masters: Sequence[Tensor], options: dict[str, Any]) -> None:
        self.param_groups: list[dict[str, Any]] = [{"params": list(masters), **options}]
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        self.found_inf: Tensor | None = None

    @abstractmethod
    def _new_state(self, master: Tensor) -> dict[str, Tensor]:
        """What is remembered of a parameter before its first step."""

    @abstractmethod
    def _update(
        self, masters: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]
    ) -> None:
        """Change parameters and states, which have been begun."""

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters that have a gradient by it; nothing waits for the device."""
        masters = [m for m in self.param_groups[0]["params"] if m.grad is not None]
        for master in masters:
            if master not in self.state:
                self.state[master] = self._new_state(master)
        self._update(masters, [m.grad for m in masters], [self.state[m] for m in masters])

    def state_dict(self) -> dict[str, Any]:
        """The state by position of the parameter, and the options."""
        (group,) = self.param_groups
        masters = group["params"]
        options = {name: value for name, value in group.items() if name != "params"}
        state = {i: self.state[m] for i, m in enumerate(masters) if m in self.state}
        return {"state": state, "param_groups": [{**options, "params": [*range(len(masters))]}]}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Take state and options of `state_dict`.

        Raises:
            ValueError: it is of another number of parameters.
        """
        (group,) = content["param_groups"]
        masters = self.param_groups[0]["params"]
        if len(group["params"]) != len(masters):
            raise ValueError(f"it has {len(group['params'])} parameters instead of {len(masters)}")
        places = {place: i for i, place in enumerate(group["params"])}
        self.state = {
            masters[places[place]]: {
                name: value.to(masters[places[place]].device, torch.float32)
                for name, value in entry.items()
            }
            for place, entry in content["state"].items()
        }
        self.param_groups[0].update({k: v for k, v in group.items() if k != "params"})


class Adam(Optimizer):
    """Adam, or AdamW where the weight decay is no part of the gradient (`is_decoupled`)."""

    def __init__(
        self, masters: Sequence[Tensor], *, lr: float, weight_decay: float, is_decoupled: bool
    ) -> None:
        options = {
            **{"lr": lr, "betas": _BETAS, "eps": _EPSILON, "weight_decay": weight_decay},
            **{"amsgrad": False, "maximize": False, "foreach": None, "capturable": False},
            **{"differentiable": False, "fused": True, "decoupled_weight_decay": is_decoupled},
        }
        super().__init__(masters, options)

    def _new_state(self, master: Tensor) -> dict[str, Tensor]:
        step = torch.zeros((), dtype=torch.float32, device=master.device)
        return {_STEP: step, **{name: torch.zeros_like(master) for name in MOMENTS}}

    def _update(
        self, masters: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]
    ) -> None:
        group = self.param_groups[0]
        beta1, beta2 = group["betas"]
        means, squares = ([state[name] for state in states] for name in MOMENTS)
        adam(
            masters,
            grads,
            means,
            squares,
            [],
            [state[_STEP] for state in states],
            fused=True,
            found_inf=self.found_inf,
            beta1=beta1,
            beta2=beta2,
            **{name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")},
            decoupled_weight_decay=group["decoupled_weight_decay"],
        )


class Sgd(Optimizer):
    """SGD with momentum, which starts at 0: a first step that overflows leaves it there."""

    def __init__(self, masters: Sequence[Tensor], *, lr: float, weight_decay: float) -> None:
        options = {
            **{"lr": lr, "momentum": SGD_MOMENTUM, "dampening": 0, "weight_decay": weight_decay},
            **{"nesterov": False, "maximize": False, "foreach": None},
            **{"differentiable": False, "fused": True},
        }
        super().__init__(masters, options)
        self.state = {master: self._new_state(master) for master in masters}

    def _new_state(self, master: Tensor) -> dict[str, Tensor]:
        return {MOMENTUM: torch.zeros_like(master)}

    def _update(
        self, masters: list[Tensor], grads: list[Tensor], states: list[dict[str, Tensor]]
    ) -> None:
        group = self.param_groups[0]
        names = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
        sgd(
            masters,
            grads,
            [state[MOMENTUM] for state in states],
            fused=True,
            found_inf=self.found_inf,
            **{name: group[name] for name in names},
        )


class MuonAndAdamW:
    """Muon for the matrices of a network and AdamW for the rest of it, which look like one.

    Muon replaces the momentum of a matrix by the nearest one of equal singular values (Jordan et
    al. 2024, "Muon: an optimizer for hidden layers in neural networks"). Its steps are scaled to
    the size of AdamW's (Liu et al. 2025, arXiv 2502.16982), so that both have the same learning
    rate and weight decay. A convolution is a matrix with one row an output channel.

    Attributes:
        found_inf: a scalar on the device; where it is 1, a step changes nothing.
    """

    def __init__(
        self,
        masters: Sequence[torch.Tensor],
        matrices: Collection[int],
        *,
        lr: float,
        weight_decay: float,
    ) -> None:
        """Take the parameters to optimise, and which of them Muon has, by position.

        Raises:
            ValueError: this torch has no Muon.
        """
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"--optimizer {MUON} needs torch.optim.Muon, which torch {torch.__version__} does "
                f"not have: install torch 2.10 or newer, or give --optimizer {ADAMW}"
            )
        self.found_inf: Tensor | None = torch.zeros((), device=masters[0].device)
        own = sorted(matrices)
        others = [i for i in range(len(masters)) if i not in matrices]
        self._matrices = [masters[i] for i in own]
        # Muon takes nothing but matrices; copies are right for any order of channels in memory
        self._flat = [torch.nn.Parameter(m.detach().flatten(1).clone()) for m in self._matrices]
        # a group, as there may be no matrices
        self._muon = torch.optim.Muon(
            [{"params": self._flat}],
            lr=lr,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = Adam(
            [masters[i] for i in others], lr=lr, weight_decay=weight_decay, is_decoupled=True
        )
        self._parts: tuple[tuple[list[int], torch.optim.Optimizer | Optimizer], ...] = (
            (own, self._muon),
            (others, self._adamw),
        )

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The options of both, to be changed in place."""
        return [group for _, optimizer in self._parts for group in optimizer.param_groups]

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters by their gradients; nothing waits for the device."""
        assert self.found_inf is not None
        is_bad = self.found_inf > 0
        self._adamw.found_inf = self.found_inf
        self._adamw.step()
        for flat, master in zip(self._flat, self._matrices, strict=True):
            flat.copy_(master.flatten(1))
            assert master.grad is not None
            momentum = self._muon.state[flat].get(MOMENTUM, torch.zeros_like(flat))
            # a momentum that is drawn towards itself stays where it is
            flat.grad = torch.where(is_bad, momentum, master.grad.flatten(1))
        self._muon.step()  # type: ignore[no-untyped-call]
        for flat, master in zip(self._flat, self._matrices, strict=True):
            master.copy_(torch.where(is_bad, master, flat.view_as(master)))
            flat.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The state by position of the parameter, and the options, as one optimizer has them."""
        state, groups = {}, []
        for places, optimizer in self._parts:
            own = optimizer.state_dict()
            state.update({places[i]: entry for i, entry in own["state"].items()})
            groups += [{**group, "params": places} for group in own["param_groups"]]
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Take the state of `state_dict`; the options stay what they are."""
        state = content["state"]
        for places, optimizer in self._parts:
            own = {i: state[place] for i, place in enumerate(places) if place in state}
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": own, "param_groups": groups})


def create_optimizer(
    name: str,
    masters: Sequence[Tensor],
    matrices: Collection[int],
    *,
    lr: float,
    weight_decay: float,
) -> Optimizer | MuonAndAdamW:
    """The optimizer of a flag's value; `matrices` as in `MuonAndAdamW`, of no use to others."""
    if name == MUON:
        return MuonAndAdamW(masters, matrices, lr=lr, weight_decay=weight_decay)
    if name == SGD:
        return Sgd(masters, lr=lr, weight_decay=weight_decay)
    return Adam(masters, lr=lr, weight_decay=weight_decay, is_decoupled=name != ADAM)
