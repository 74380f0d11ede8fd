"""Several processes give what one gives: under the real launcher, and forked for 2 and 3."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

import sr_mean_test
import sr_var.results.folder
import sr_var_test
from sr_var.script_util import create_mean_model
from tests.pipeline import MEAN_STEPS, NUM_SAMPLES, Pipeline
from tests.processes import (
    free_port,
    launch_environment,
    run_script_together,
    run_together,
    run_torchrun,
)
from tests.scripts.runs import flags_of
from tests.tiny import (
    CLASSES,
    LARGE,
    REGRESSION_NET,
    TEST_NAMES,
    done,
    tree,
    words,
    write_info,
)

pytestmark = pytest.mark.dist

ALL_NAMES = [name for _, names in CLASSES.values() for name in names]
# biases before a normalisation have gradient 0 up to rounding, which AdamW blows up to steps of
# some size and the normalisation removes again: so outputs and averaged gradients are compared
# (measured: 2.8e-9 of outputs of size 2e-3, 1.0e-7 of gradients up to 4e-2)
OUTPUT_ATOL = 5e-8
GRADIENT_ATOL = 1e-6
# kernels round by batch size; measured 1.5e-5 grey levels
GREY_LEVELS_ATOL = 1e-3


def _output(weights: Path) -> torch.Tensor:
    model = create_mean_model(**REGRESSION_NET).eval()
    model.load_state_dict(torch.load(weights, weights_only=True))
    x = torch.randn(4, 3, LARGE, LARGE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output: torch.Tensor = model(x)
    return output


def test_training_of_two_processes_ends_with_the_network_of_one(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """Two processes of batch 1 see the images of one process of batch 2, in the same order."""
    changes = {"microbatch": -1, "max_step": 3, "log_interval": 1}
    for name, batch_size in (("one", 2), ("two", 1)):
        flags = flags_of(pipeline, "sr_mean_train", tmp_path / name)
        argv = words({**flags, **changes, "batch_size": batch_size})
        said = (
            done("sr_mean_train", argv).out
            if name == "one"
            else run_torchrun("sr_mean_train", argv)
        )
        assert said.count("| loss ") == 3  # one process logs
    states = [tmp_path / name / "save" / "model000003.pt" for name in ("one", "two")]
    outputs = [_output(path) for path in states]
    torch.testing.assert_close(*outputs, rtol=0, atol=OUTPUT_ATOL)
    moments = [torch.load(path.with_name("opt000003.pt"), weights_only=True) for path in states]
    for one, two in zip(*(state["state"].values() for state in moments), strict=True):
        torch.testing.assert_close(one["exp_avg"], two["exp_avg"], rtol=0, atol=GRADIENT_ATOL)
    logs = (tmp_path / "two" / "log" / "logs.txt").read_text()
    assert logs.count("saved step 3") == 1
    assert (tmp_path / "two" / "log" / "mean_model_args.pkl").exists()


def test_test_of_two_processes_writes_the_results_of_one(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    argv = words(flags_of(pipeline, "sr_mean_test", tmp_path), batch_size=2)
    run_script_together("sr_mean_test", argv)
    found, expected = tree(tmp_path / "out"), tree(pipeline.nets_dir)
    of_variance = ("_var_", ".var", "_std_")
    assert found.keys() == {
        name for name in expected if not any(part in name for part in of_variance)
    }
    for name in TEST_NAMES:
        file = f"high_res_mean_{MEAN_STEPS}.npy"
        one, two = (np.load(d / name / file) for d in (pipeline.nets_dir, tmp_path / "out"))
        np.testing.assert_allclose(one, two, rtol=0, atol=GREY_LEVELS_ATOL)


def test_sampling_of_two_processes_writes_the_samples_of_one(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """Byte for byte: batches are filled up, so that kernels round alike."""
    argv = words(flags_of(pipeline, "ddpm_sr_sample", tmp_path), batch_size=4)
    run_script_together("ddpm_sr_sample", argv)
    found = {path: content for path, content in tree(tmp_path / "out").items() if path[0] != "."}
    expected = tree(pipeline.samples_dir)
    pictures = [path for path in found if path.endswith(".png")]
    assert len(pictures) == len(TEST_NAMES) * (NUM_SAMPLES + 1)
    assert [path for path in pictures if found[path] != expected[path]] == []


def _forked_test(script: str, argv: list[str], journal: Path, num_processes: int) -> None:
    """Runs a test script in forked processes; the journal lists every file that they write."""
    port = free_port()

    def work(rank: int) -> None:
        os.environ |= launch_environment(rank, num_processes)
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        real = sr_var.results.folder.ResultFolder.path

        def recorded(self: sr_var.results.folder.ResultFolder, name: str, file_name: str) -> str:
            with open(journal, "a", encoding="utf-8") as file:
                file.write(f"{name}/{file_name}\n")
            return real(self, name, file_name)

        sr_var.results.folder.ResultFolder.path = recorded  # type: ignore[method-assign]
        module = {"sr_mean_test": sr_mean_test, "sr_var_test": sr_var_test}[script]
        assert module.main(argv) == 0

    run_together(work, num_processes)


@pytest.mark.parametrize("script", ["sr_mean_test", "sr_var_test"])
@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_every_image_is_processed_exactly_once(
    pipeline: Pipeline, tmp_path: Path, script: str, num_processes: int
) -> None:
    """Ten images, which neither 3 processes nor batches of 4 divide."""
    info = write_info(tmp_path / "info.pkl")
    flags = {**flags_of(pipeline, script, tmp_path), "data_info_dict_path": info, "batch_size": 4}
    journal = tmp_path / "journal"
    _forked_test(script, words(flags), journal, num_processes)
    files_per_image = 3 if script == "sr_mean_test" else 4
    written = journal.read_text().splitlines()
    assert len(written) == len(set(written)) == len(ALL_NAMES) * files_per_image
    assert {line.rpartition("/")[0] for line in written} == set(ALL_NAMES)
    for line in written:
        assert (tmp_path / "out" / line).exists()


def test_flag_of_the_older_launcher_is_accepted_in_both_spellings(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    """``torch.distributed.launch`` passes it; the environment, where there is one, decides."""
    argv = words(flags_of(pipeline, "sr_mean_test", tmp_path))
    for spelling in (["--local_rank", "0"], ["--local-rank=0"]):
        done("sr_mean_test", [*spelling, *argv])
