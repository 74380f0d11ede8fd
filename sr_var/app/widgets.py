"""What the tabs of the page share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from sr_var.app.results import Refused


def refusing(gr: Any, work: Callable[..., Any]) -> Callable[..., Any]:
    """The function or generator, with a refusal as a line that the page shows."""

    def wrapped(*arguments: Any) -> Any:
        try:
            return work(*arguments)
        except Refused as refusal:
            raise gr.Error(str(refusal), print_exception=False) from None

    def generated(*arguments: Any) -> Iterator[Any]:
        try:
            yield from work(*arguments)
        except Refused as refusal:
            raise gr.Error(str(refusal), print_exception=False) from None

    return generated if inspect.isgeneratorfunction(work) else wrapped
