"""What cannot be shown is lost: the work goes on, its files are its own, its exit code stays."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.tiny import ROOT
from utils.logger import RunLogger
from utils.process.console import show
from utils.process.errors import EXIT_CHECKPOINT, EXIT_DONE
from utils.process.progress import Progress

# prints through Python, as a library of C does, and through a child, while a file is open
SCRIPT = """
import contextlib, os, subprocess, sys
from utils.process.errors import CheckpointError, run_main

def main():
    with open("result", "w") as file:
        file.write("whole")
        file.flush()
        for stream in (sys.stdout, sys.stderr):
            print("σ → \\udce9", file=stream, flush=True)
        for number in (1, 2):
            with contextlib.suppress(OSError):
                os.write(number, b"library\\n")
        subprocess.run(["sh", "-c", "echo child; echo child >&2"])
        print("at the end")
    if sys.argv[1] == "4":
        raise CheckpointError("σ")
    return int(sys.argv[1])

run_main(main)
"""
CODES = [EXIT_DONE, EXIT_CHECKPOINT]


def _closing(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


def _run(
    folder: Path, code: int, *, options: Sequence[str] = (), encoding: str = "utf-8", **how: object
) -> subprocess.CompletedProcess[bytes]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding}
    command = [sys.executable, *options, "-c", SCRIPT, str(code)]
    done = subprocess.run(command, cwd=folder, env=environ, **{**streams, **how})  # type: ignore[call-overload]
    assert done.returncode == code, done.stderr
    assert (folder / "result").read_text() == "whole"
    return done  # type: ignore[no-any-return]


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("numbers", [(1,), (2,), (1, 2), (0, 1, 2)])
def test_closed_stream_is_no_error_and_no_file_gets_its_number(
    tmp_path: Path, numbers: tuple[int, ...], code: int
) -> None:
    said = _run(tmp_path, code, preexec_fn=_closing(*numbers))
    assert (b"library\nchild" in said.stdout) == (1 not in numbers)
    assert (b"library\nchild" in said.stderr) == (2 not in numbers)


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("options", [(), ("-u",)])
def test_stream_that_takes_no_more_is_no_error(
    tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    with open("/dev/full", "wb") as full:
        ended = _run(tmp_path, code, options=options, stdout=full, stderr=full)
    assert ended.returncode == code and (tmp_path / "result").read_text() == "whole"


@pytest.mark.parametrize("code", CODES)
def test_reader_that_has_left_is_no_error(tmp_path: Path, code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = _run(tmp_path, code, stdout=writer, stderr=writer)
    finally:
        os.close(writer)
    assert ended.returncode == code and (tmp_path / "result").read_text() == "whole"


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("options", [(), ("-u",)])
def test_letter_that_an_encoding_lacks_is_escaped(
    tmp_path: Path, options: tuple[str, ...], code: int
) -> None:
    said = _run(tmp_path, code, options=options, encoding="ascii")
    assert said.stdout == b"\\u03c3 \\u2192 \\udce9\nlibrary\nchild\nat the end\n"
    error = b"error: \\u03c3\n" if code == EXIT_CHECKPOINT else b""
    assert said.stderr == b"\\u03c3 \\u2192 \\udce9\nlibrary\nchild\n" + error


def test_letters_that_an_encoding_has_are_shown(tmp_path: Path) -> None:
    assert _run(tmp_path, 0).stdout.decode() == "σ → \\udce9\nlibrary\nchild\nat the end\n"


def test_lines_of_both_streams_keep_their_order_in_one_file(tmp_path: Path) -> None:
    with open(tmp_path / "said", "wb") as file:
        _run(tmp_path, EXIT_CHECKPOINT, stdout=file, stderr=file)
    lines = (tmp_path / "said").read_text().splitlines()
    shown = "σ → \\udce9"
    assert lines[:6] == [shown, shown, "library", "library", "child", "child"]
    assert set(lines[6:]) == {"at the end", "error: σ"}


# ---- outside of a script, where nobody has prepared the streams


class _Full(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def _narrow() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), "ascii")


@pytest.mark.parametrize("stream", [None, _Full()])
def test_lines_of_a_library_are_lost_where_nobody_takes_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stream: io.StringIO | None
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, stream)
    logger = RunLogger(str(tmp_path))
    logger.info("σ")
    logger.close()
    with Progress(2, "testing") as bar:
        bar.write("a line")
        bar.update()
    assert "σ" in (tmp_path / "logs.txt").read_text("utf-8")


def test_line_that_an_encoding_lacks_is_shown_and_logged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Half a character is what Python makes of a name of a file that is not UTF-8."""
    stream = _narrow()
    monkeypatch.setattr(sys, "stdout", stream)
    logger = RunLogger(str(tmp_path))
    logger.info("σ \udce9")
    logger.write_args({"data_dir": "\udce9"})
    logger.close()
    show("é", stream)
    assert stream.buffer.getvalue() == b"\\u03c3 \\udce9\n\\xe9\n"  # type: ignore[attr-defined]
    assert (tmp_path / "logs.txt").read_text("utf-8").endswith("σ \\udce9\n")
    assert (tmp_path / "args.json").read_text("utf-8") == '{\n  "data_dir": "\\udce9"\n}\n'
