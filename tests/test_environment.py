"""What the machine's environment says does not reach the tests."""

from __future__ import annotations

import os

from tests.environment import settle


def test_variables_of_a_shell_a_job_or_a_launcher_are_taken_away() -> None:
    foreign = ("SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_SIZE", "RANK", "LOCAL_WORLD_SIZE")
    foreign += ("MASTER_PORT", "OPENAI_LOGDIR", "WINOGRAD", "PYTHON", "MKL_NUM_THREADS")
    environ = dict.fromkeys((*foreign, "OMP_NUM_THREADS", "HOME", "RELIABILITY"), "7")
    settle(environ)
    assert environ == {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HOME": "7",
        "RELIABILITY": "7",
    }


def test_gpus_that_are_named_are_kept_and_the_tests_run_in_one_thread() -> None:
    environ = {"CUDA_VISIBLE_DEVICES": "1"}
    settle(environ)
    assert environ["CUDA_VISIBLE_DEVICES"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "1" and "RANK" not in os.environ
