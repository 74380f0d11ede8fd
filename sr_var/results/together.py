"""The samples of all images in one file, as users of other samplers have them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sr_var.flags.scripts import SampleFlags, SRDiffusionModelFlags
from sr_var.results.folder import sample_path
from utils.files.lock import lock_or_sign_of_life
from utils.files.storage import make_folder
from utils.images.files import open_image, safe_join
from utils.images.listing import Entry
from utils.images.rows import samples_path, write_rows
from utils.process.stop import go_on_with
from utils.runs.job import working


def put_together(
    entries: Sequence[Entry],
    flags: SampleFlags,
    network: SRDiffusionModelFlags,
    log: Callable[[str], None],
) -> None:
    """Write `samples_NxHxWxC.npz` of all pictures, image by image, once all are there.

    Of several processes the last one does it. Rows are in the order of the entries, the samples of
    an image side by side; `arr_1` are the labels that the network was given, if it has classes.

    Raises:
        StopRequested: if a signal came; the next run goes on here.
    """
    folder, each = flags.output_dir, flags.num_samples_per_image
    paths = [
        sample_path(safe_join(folder, entry.name), index)
        for entry in entries
        for index in range(each)
    ]
    channels = flags.in_channels
    shape = (len(paths), *network.sizes[0], channels)
    path = samples_path(folder, shape)
    missing = sum(not os.path.exists(one) for one in paths)
    if missing:
        log(f"notice: {missing} samples are not there; who draws the last puts all together")
        return
    claims = os.path.join(folder, ".claims")
    make_folder(claims)
    lock = lock_or_sign_of_life(os.path.join(claims, "together.lock"))
    if lock is None:
        log("another process puts the samples together")
        return
    with lock:
        if os.path.exists(path):
            return
        remedy = go_on_with(f"--output_dir {folder}")

        def rows() -> Iterator[NDArray[np.uint8]]:
            with working(len(paths), "putting together", "sample", remedy=remedy) as job:
                for one in paths:
                    picture = open_image(one).convert("L" if channels == 1 else "RGB")
                    yield np.asarray(picture)
                    job.done()

        labels = np.repeat(np.array([entry.y for entry in entries], np.int64), each)
        write_rows(path, shape, rows(), labels if network.class_cond else None)
        log(f"written: {path}")
