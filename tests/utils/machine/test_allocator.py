"""The allocator is set where glibc is, unless the environment says no; it returns what is free."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import resource
import numpy as np
from utils.machine.threads import tune_allocator

is_tuned = tune_allocator()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(1 << 22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(is_tuned, faults())
"""


def _run(setting: str) -> tuple[bool, int]:
    command = [sys.executable, "-c", SCRIPT]
    env = {"TUNED_MALLOC": setting, "PATH": "", "PYTHONPATH": "."}
    words = subprocess.run(
        command, env=env, capture_output=True, text=True, check=True
    ).stdout.split()
    return words[0] == "True", int(words[1])


def test_large_arrays_are_not_faulted_in_again() -> None:
    is_tuned, page_faults = _run("1")
    assert is_tuned
    assert page_faults < 100


def test_the_environment_switches_it_off() -> None:
    is_tuned, page_faults = _run("0")
    assert not is_tuned
    assert page_faults > 100  # 32 MB of fresh pages, small or huge


PINNED = """
import numpy as np
from benchmarks.usage import Usage
from utils.machine.threads import return_free_memory

usage = Usage()
kept = []
for _ in range(400):  # 40 MB of arrays that go, with a small one behind each that stays
    large = [np.ones(12_500) for _ in range(2)]
    kept.append((np.ones(100), large))
kept = [small for small, _ in kept]
before = usage.taken()["private"]
print(return_free_memory(), before - usage.taken()["private"])
"""


def test_free_memory_between_small_results_is_returned() -> None:
    command = [sys.executable, "-c", PINNED]
    env = {"PATH": "", "PYTHONPATH": ".", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    is_possible, returned = said.split()
    assert is_possible == "True" and float(returned) > 20  # MiB
