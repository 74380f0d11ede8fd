"""A script's process can end without Python's teardown, and loses nothing by it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.tiny import ROOT

SCRIPT = """
import atexit, sys
from utils.process import errors as exit_util
from utils.process.errors import CheckpointError, run_main

class Kept:
    def __del__(self):
        print("torn down")

def main():
    global kept
    kept = Kept()
    atexit.register(print, "at exit")
    if sys.argv[1] == "skip":
        exit_util.skip_teardown()
    print("buffered", end=" ")
    if sys.argv[2] == "4":
        raise CheckpointError("damaged")
    return int(sys.argv[2])

run_main(main)
"""


@pytest.mark.parametrize("code", ["0", "4", "75"])
@pytest.mark.parametrize("way", ["skip", "whole"])
def test_end_without_teardown_keeps_code_output_and_exit_handlers(way: str, code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, way, code], capture_output=True, text=True, cwd=ROOT
    )
    assert str(done.returncode) == code
    assert done.stderr == ("error: damaged\n" if code == "4" else "")
    assert done.stdout == "buffered at exit\n" + "torn down\n" * (way == "whole")
