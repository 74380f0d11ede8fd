"""Reads JSON that anybody may have written; what it should hold is the business of the caller."""

from __future__ import annotations

import json
from typing import Any

from utils.files.atomic import StrPath, read_up_to

MAX_BYTES = 1 << 26
_LARGEST = 1e150


def parse_json(text: bytes | str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: no JSON, not UTF-8, or nested too deeply; the message is short.
    """
    try:
        return json.loads(text)
    except UnicodeDecodeError as error:  # shown whole, it holds the whole text
        raise ValueError(f"byte {error.start} is no UTF-8") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_number(value: object) -> bool:
    """Whether a JSON value is a finite number that float64 can hold with its square."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


def read_json(path: StrPath) -> Any:
    """What a JSON file says, local or remote.

    Raises:
        OSError: it cannot be read.
        ValueError: as :func:`parse_json`, or it is longer than any record of this project.
    """
    data = read_up_to(path, MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    return parse_json(data)
