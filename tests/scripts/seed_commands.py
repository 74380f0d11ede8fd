"""The documented commands, and a shell that says which words it would hand to python."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

COMMANDS_FILE = Path(__file__).parents[1] / "data" / "seed_commands.sh"

# python and mpiexec become functions that print their words, NUL between them, newline after
_PRINT_WORDS = r"""
python() { printf '%s\0' "$@"; printf '\n'; }
mpiexec() { shift 3; python "$@"; }
"""


def blocks() -> dict[str, str]:
    """Name → shell text, in the order of the file."""
    parts = re.split(r"^#: (\S+)\n", COMMANDS_FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def python_commands(block: str) -> list[tuple[str, list[str]]]:
    """(script without ``.py``, words) of every python command, split as bash splits them."""
    said = subprocess.run(
        ["bash", "-euc", f"NUM_GPUS=2\n{_PRINT_WORDS}\n{block}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    lines = [line.split("\0")[:-1] for line in said.splitlines()]
    return [(words[0].removesuffix(".py"), words[1:]) for words in lines]


def with_tail(block: str, tail: list[str]) -> str:
    """The same shell text with more words at the end of its last line, the command."""
    return f"{block.rstrip()} {shlex.join(tail)}\n"
