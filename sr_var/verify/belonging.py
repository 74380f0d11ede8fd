"""Whether the mean and the variance that are compared belong together: told from their stamps."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from sr_var.base_dataset import load_entries
from sr_var.flags.scripts import VerificationFlags
from sr_var.results.folder import models_of, read_stamp, short, stamp_path
from utils.files.identity import list_digest
from utils.process.errors import DataError

Stamp = tuple[str, list[str]]


def require_one_origin(flags: VerificationFlags, log: Callable[[str], None]) -> None:
    """Refuses a mean that the variance beside it was not made on.

    A variance net sees a mean and is trained on its residuals, and a baseline gives both, so each
    variance goes with one mean. The exception is a variance on the average of the nets of all
    folds: the mean is then that of one net of all images (docs/theory.md, section 4). Results
    without a stamp, as other tools leave them, are taken as they are.

    Args:
        flags: where the results are.
        log: receives a notice of that exception.

    Raises:
        DataError: names both stamps and both checkpoints.
    """
    folder = flags.sr_model_output_dir
    mean = _stamp(folder, "mean", flags.mean_model_step)
    variance = _stamp(folder, "var", flags.var_model_step)
    if mean is None or variance is None:
        return
    (mean_path, (mean_digest, *_)), (variance_path, models) = mean, variance
    # a variance net's stamp begins with its own file; a baseline's file is all there is
    made_on = models[1:] or models
    if mean_digest in made_on:
        return
    if len(made_on) > 1:
        log(
            f"notice: the variances are on the average of the mean nets of {len(made_on)} folds "
            f"({short(made_on)}), the means are of another net ({short([mean_digest])})"
        )
        return
    raise DataError(
        f"{mean_path}: these means are of the checkpoint {short([mean_digest])}, but "
        f"{variance_path}: these variances were made on {short(made_on)}; run sr_var_test.py again "
        "with the --mean_model_path of these means, or give the --sr_model_output_dir, "
        "--mean_model_step and --var_model_step of results that belong together"
    )


def origins(flags: VerificationFlags) -> dict[str, Any]:
    """What figures of nets' results are about: their checkpoints and the list of images.

    Returns:
        JSON types; None for results without a stamp.
    """
    mean = _stamp(flags.sr_model_output_dir, "mean", flags.mean_model_step)
    variance = _stamp(flags.sr_model_output_dir, "var", flags.var_model_step)
    entries = load_entries(flags.data_info_dict_path, flags.data_dir)
    return {
        "mean_models": mean and mean[1],
        "var_models": variance and variance[1],
        "images": list_digest([(entry.name, entry.y) for entry in entries]),
    }


def has_own_means(flags: VerificationFlags) -> bool:
    """Whether a test of this project wrote the means."""
    folder, step = flags.sr_model_output_dir, flags.mean_model_step
    return any(os.path.exists(stamp_path(folder, kind, step)) for kind in ("mean", "baseline"))


def _stamp(folder: str, kind: str, step: int) -> Stamp | None:
    """(path, digests) of the stamp of results; None if there is none."""
    for path in (stamp_path(folder, one, step) for one in (kind, "baseline")):
        models = models_of(read_stamp(path, "delete it and run the test that wrote it again"))
        if models:
            return path, models
    return None
