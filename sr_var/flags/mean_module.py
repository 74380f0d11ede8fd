"""The flag that puts a function in the place of the mean net; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from utils.script_util import flag


@dataclass(frozen=True)
class MeanModuleFlags:
    """A published restorer in the place of a mean net."""

    mean_module: str = flag(
        "",
        "module:function that restores in place of a mean net, restore(low_res, size) -> mean "
        "(docs/restorers.md). It RUNS the code of that module: only for code of your own",
    )

    def __post_init__(self) -> None:
        """Refuse a mean net beside the function."""
        path = getattr(self, "mean_model_path", "")
        if self.mean_module and path:
            raise ValueError(
                f"--mean_module {self.mean_module} takes the place of --mean_model_path {path}; "
                "leave out one of them"
            )
