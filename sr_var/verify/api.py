"""The verification as a function: what sr_var_verification.py does, from Python."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from sr_var.base_dataset import load_entries
from sr_var.flags.verify import VerificationFlags
from sr_var.verify.numbers.summary import Summary
from sr_var.verify.run import compare, inputs_of
from utils.images.files import safe_join
from utils.logger import RunLogger
from utils.process.errors import DataError
from utils.script_util import FlagValues
from utils.sizes import Size
from utils.untrusted.arrays import read_npy

Log = Callable[[str], None]
# steps by flag: what a result is named, and the script that writes it
_STEPS = {
    "mean_model_step": ("mean", "sr_mean_test.py"),
    "var_model_step": ("var", "sr_var_test.py"),
}
_OF_A_STEP = re.compile(r"high_res_(mean|var)_(\d+)\.(?:npy|png|pkl)")


def verify_results(
    sr_model_output_dir: str,
    data_dir: str,
    data_info_dict_path: str,
    *,
    ddpm_sr_output_dir: str = "",
    log_dir: str = "",
    log: Log = lambda line: None,
    **flags: Any,
) -> Summary:
    """Compare the nets' results of a folder with real images, and with samples if there are any.

    As sr_var_verification.py, whose `--help` and docs/theory.md define the metrics. Steps and
    sizes that are not given are those of the files.

    Args:
        sr_model_output_dir: folder of the results of sr_mean_test.py and sr_var_test.py.
        data_dir: folder of the real images.
        data_info_dict_path: info dict of those to compare.
        ddpm_sr_output_dir: folder of the samples; empty: the nets are judged against the real
            images alone.
        log_dir: folder of results.json, results.csv, report.html and pictures; empty: nothing is
            written anywhere.
        log: receives the table and notices.
        flags: others of sr_var_verification.py by name, as `num_samples=20`, `margin=0.1`.

    Returns:
        The content of results.json (docs/file_formats.md), in grey levels; a PSNR of equal images
        is infinite here, and metrics that are not known are nan.

    Raises:
        DataError: a file is missing or damaged, or what is compared does not belong together.
        ValueError: a flag is unknown or its value impossible, or several steps are there.
    """
    places = {
        "sr_model_output_dir": sr_model_output_dir,
        "data_dir": data_dir,
        "data_info_dict_path": data_info_dict_path,
        "ddpm_sr_output_dir": ddpm_sr_output_dir,
        "log_dir": log_dir,
    }
    settled = _settled(places, flags)
    logger = RunLogger(log_dir if settled.is_writing else None, log=log)
    try:
        comparison = compare(*inputs_of(settled, logger), settled, logger, lambda: None)
        if settled.is_writing:
            comparison.write(log_dir, logger)
    finally:
        logger.close()
    return comparison.summary


def _settled(places: Mapping[str, str], flags: Mapping[str, Any]) -> VerificationFlags:
    """The flags of the comparison, with what the files say in the place of what is not given."""
    unknown = flags.keys() - VerificationFlags.__dataclass_fields__.keys()
    if unknown:
        raise ValueError(f"sr_var_verification.py has no --{' --'.join(sorted(unknown))}")
    given = dict(flags)
    if not places["ddpm_sr_output_dir"]:
        if given.get("num_samples"):
            raise ValueError(
                f"num_samples {given['num_samples']} without ddpm_sr_output_dir; name their folder"
            )
        given["num_samples"] = 0
    entries = load_entries(places["data_info_dict_path"], places["data_dir"], "data_info_dict_path")
    found = _of_files(safe_join(places["sr_model_output_dir"], entries[0].name), given)
    values: FlagValues = {**places, **found, **given}
    return VerificationFlags(**values)


def _of_files(folder: str, flags: Mapping[str, Any]) -> dict[str, int | str]:
    """Steps and size of the results of one image, as far as no flag gives them."""
    there = os.path.join(glob.escape(folder), "high_res_*")
    names = [os.path.basename(path) for path in glob.glob(there)]
    matches = [match for match in map(_OF_A_STEP.fullmatch, names) if match]
    found: dict[str, int | str] = {}
    for flag, (kind, script) in _STEPS.items():
        steps = sorted({int(match[2]) for match in matches if match[1] == kind})
        if flag in flags:
            continue
        if not steps:
            raise DataError(f"{folder} holds no high_res_{kind}_… of {script}")
        if len(steps) > 1:
            raise ValueError(f"{folder} holds the steps {steps}; say which: {flag}={steps[-1]}")
        found[flag] = steps[0]
    step = {**found, **flags}["mean_model_step"]
    path = os.path.join(folder, f"high_res_mean_{step}.npy")
    if "large_size" not in flags and os.path.exists(path):
        mean = read_npy(path, remedy="run sr_mean_test.py again")
        found["large_size"] = Size(*mean.shape[:2]).stored
    return found
