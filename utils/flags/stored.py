"""Values of flags out of a file that anybody may have written. No torch.

Which flags a file should hold is the business of the caller.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from utils.files.records import shown
from utils.process.errors import CheckpointError

# letters of a word, and a number: what is more is no setting of a network
_MAX_LENGTH, _MAX_NUMBER = 1000, 1_000_000


def stored_value(field: dataclasses.Field[Any], value: Any, source: str) -> Any:
    """The value of a flag, of the type that its default has.

    Args:
        field: of the flag (`script_util.flags_of`).
        value: what the file says.
        source: the file, for the message.

    Raises:
        CheckpointError: if it is nothing that a command line could give; names file and flag.
    """
    kind, choices = type(field.default), field.metadata["choices"]
    if kind is float and type(value) is int and abs(value) <= _MAX_NUMBER:
        value = float(value)
    if type(value) is not kind or not _is_usable(value) or (choices and value not in choices):
        expected = f"one of {', '.join(choices)}" if choices else f"a usable {kind.__name__}"
        raise CheckpointError(
            f"{source}: --{field.name} is {shown(value)}, expected {expected}; this toolkit does "
            "not write such a file: move it away to go on without it"
        )
    return value


def _is_usable(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MAX_LENGTH
    return bool(abs(value) <= _MAX_NUMBER)  # neither does nan
