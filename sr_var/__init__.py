"""Task: conditional mean and variance of a high-res image given its low-res version.

`Predictor`, `Prediction`, `load_mean_net`, `load_var_net` and `verify_results` are imported when
they are asked for, so that `import sr_var` needs no torch (docs/python.md).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sr_var.predict.nets import load_mean_net as load_mean_net
    from sr_var.predict.nets import load_var_net as load_var_net
    from sr_var.predict.predictor import Prediction as Prediction
    from sr_var.predict.predictor import Predictor as Predictor
    from sr_var.verify.api import verify_results as verify_results

__version__ = "0.1.0"

_MODULES = {
    "Prediction": "sr_var.predict.predictor",
    "Predictor": "sr_var.predict.predictor",
    "load_mean_net": "sr_var.predict.nets",
    "load_var_net": "sr_var.predict.nets",
    "verify_results": "sr_var.verify.api",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULES])
