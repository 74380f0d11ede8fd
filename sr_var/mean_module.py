"""A published restorer in the place of the mean net: any function from images to images.

`--mean_module package.module:function` imports the module and calls the function, which is code of
one's own: nothing of it is looked at before it runs (SECURITY.md). The theorem asks for no mean:
with the residuals of any frozen estimate m as labels, the variance net learns
E[(Y - m(X))² | X] = Var[Y | X] + (E[Y | X] - m(X))², the mean squared error of m at each pixel
(docs/theory.md, eq. 4).
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from sr_var.degrade.view import View
from sr_var.flags.scripts import MeanModelFlags
from utils.files.atomic import sha256_of
from utils.process.errors import DataError
from utils.sizes import Size

Restore = Callable[[Tensor, tuple[int, int]], Tensor]
Log = Callable[[str], None]
_AS = "as restorers:bicubic for the function bicubic of restorers.py"


@dataclass(frozen=True)
class MeanModule:
    """The function that `--mean_module` names.

    Attributes:
        name: `package.module:function`; found in the current folder, or where Python looks.
    """

    name: str

    def module(self) -> ModuleType:
        """The module, imported.

        Raises:
            ValueError: the name is none, or the module is missing, cannot be imported, or is of no
                file.
        """
        name, _, function = self.name.partition(":")
        words = [*name.split("."), *function.split(".")]
        if not all(word.isidentifier() for word in words):
            raise ValueError(f"--mean_module {self.name!r} must be module:function, {_AS}")
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())  # behind all others, whose names it must not take
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise ValueError(f"--mean_module {self.name}: {_told(error)}") from error
        if not getattr(module, "__file__", None):
            raise ValueError(f"--mean_module {self.name}: {name} is no file; name a module of one")
        return module

    @property
    def source(self) -> str:
        """The file of the module, whose sha256 stands for the function; errors as `module`."""
        return str(self.module().__file__)

    def source_of_all(self, *, has_folds: bool) -> str:
        """`source`, of a training without folds; a ValueError with them."""
        if has_folds:
            raise ValueError(
                f"--mean_module {self.name} has left out no fold; leave out --cross_fit"
            )
        return self.source

    def function(self) -> Restore:
        """The function; errors as `module`, and a ValueError for what is none."""
        found: Any = self.module()
        for part in self.name.partition(":")[2].split("."):
            if not hasattr(found, part):
                raise ValueError(
                    f"--mean_module {self.name}: {self.source} has no {part}; name a function of "
                    "this module"
                )
            found = getattr(found, part)
        if not callable(found) or isinstance(found, type):
            raise ValueError(
                f"--mean_module {self.name} is a {type(found).__name__}, no function; name one of "
                "restore(low_res, size)"
            )
        restore: Restore = found
        return restore

    def network(self, flags: MeanModelFlags, log: Log) -> RestoredMean:
        """The function as the mean net of nets with these flags, tried once.

        Raises:
            ValueError: as `function`; or the nets know classes, which no function is told.
            DataError: what it returns for images of zeros does not fit.
        """
        if flags.class_cond:
            raise ValueError(
                f"--mean_module {self.name} is told no class; leave out --class_cond True"
            )
        made = RestoredMean(self.name, self.function(), flags.out_channels)
        log(f"mean module: {self.name}, {self.source}, sha256 {sha256_of(self.source)}")
        view = View.of(flags)
        size = Size.of(view.large)
        trial = torch.zeros(1, flags.in_channels, *size)
        if view.is_measured:
            made(torch.zeros(1, view.image_channels or flags.in_channels, *view.sizes[1]), size)
        else:
            made(view.x_of(trial, ["trial"]), size)
        return made


class RestoredMean(nn.Module):
    """`restore(low_res, size)` as a network that is not trained.

    Args:
        name: of the function, for messages and records.
        restore: a function, or a network, which goes to the device with this one.
        num_channels: of an image.
    """

    def __init__(self, name: str, restore: Restore, num_channels: int) -> None:
        super().__init__()
        self.name, self._num_channels = name, num_channels
        self.restore = restore
        if isinstance(restore, nn.Module):
            restore.eval().requires_grad_(False)

    def forward(self, low_res: Tensor, size: Sequence[int] | None = None) -> Tensor:
        """The mean (N, C, H, W) of X, (N, C + extra, h, w) in [-1, 1], on the device of X.

        Raises:
            DataError: the function fails, or what it returns is no float tensor of this shape, or
                not finite.
        """
        height, width = tuple(low_res.shape[2:]) if size is None else tuple(size)
        try:
            # its own copy: whatever it changes is not what others see
            found = self.restore(low_res.detach().float().clone(), (height, width))
        except Exception as error:
            raise DataError(f"--mean_module {self.name} failed: {_told(error)}") from error
        shape = (len(low_res), self._num_channels, height, width)
        if not isinstance(found, Tensor) or not found.is_floating_point():
            kind = found.dtype if isinstance(found, Tensor) else type(found).__name__
            raise DataError(
                f"--mean_module {self.name} returned {kind}; return a float tensor of {shape}"
            )
        if tuple(found.shape) != shape:
            raise DataError(
                f"--mean_module {self.name} returned the shape {tuple(found.shape)} for images of "
                f"{tuple(low_res.shape)}; return {shape}"
            )
        if not bool(found.isfinite().all()):
            raise DataError(
                f"--mean_module {self.name} returned values that are not finite; mend the function"
            )
        return found.detach().to(low_res.device, low_res.dtype)


def _told(error: BaseException) -> str:
    """An error of code that is not ours as one line, with the place that it is from."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, ModuleNotFoundError):
        return f"{text}; it is looked for in the current folder and where Python looks"
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename != __file__]
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{place}"
