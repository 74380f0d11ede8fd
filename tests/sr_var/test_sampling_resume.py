"""A sampler stopped anywhere and run again leaves what one run leaves."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sr_var.sampling
from ddpm.sampling import SECONDS_FILE
from sr_var.results.folder import pictures_in, sample_path
from sr_var.results.moments import SampleMoments
from sr_var.sampling import missing_indices
from tests.sr_var.samplers import (
    ENTRIES,
    NUM_SAMPLES,
    NoBar,
    NoStop,
    assert_same_moments,
    assert_same_pictures,
    content,
    make_sampler,
    pictures,
    stored,
)
from tests.tiny import TEST_NAMES, TinyData
from utils.files import atomic as atomic_file
from utils.files.atomic import atomic_write
from utils.process.errors import DataError
from utils.process.progress import Progress

# moments are merged in another order after a stop: float64 rounding, in grey levels and powers
MOMENTS_RTOL = 1e-9


class Evaluations:
    """Counts network evaluations and, at the ``stop_at``-th, does ``action``."""

    def __init__(self, model: torch.nn.Module, stop_at: int, action: Any) -> None:
        self.num, self._stop_at, self._action = 0, stop_at, action
        model.register_forward_hook(self)

    def __call__(self, *args: Any) -> None:
        self.num += 1
        if self.num == self._stop_at:
            self._action()


class Killed(BaseException):
    """Stands for a kill: nothing of the program catches it."""


def _kill() -> None:
    raise Killed


def test_stopped_by_a_signal_at_any_step_and_run_again(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path
) -> None:
    for stop_at in (1, 6, 15):
        folder = tmp_path / str(stop_at)
        sampler = make_sampler(tiny_data, folder)
        evaluations = Evaluations(
            sampler._model, stop_at, lambda: signal.raise_signal(signal.SIGTERM)
        )
        assert not sampler.run_loop()
        assert evaluations.num == stop_at  # stops within the step, not after the batch
        assert make_sampler(tiny_data, folder).run_loop()
        assert_same_pictures(folder, uninterrupted)
        for name in TEST_NAMES:
            assert_same_moments(stored(folder, name), stored(uninterrupted, name))


def test_killed_between_any_two_files_and_run_again(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is killed again and again, each time one write later, and goes on each time."""
    real = {"save_image": sr_var.sampling.save_image, "save": SampleMoments.save}
    num_left = 0

    def guarded(name: str) -> Any:
        def write(*args: Any, **kwargs: Any) -> None:
            nonlocal num_left
            if num_left == 0:
                raise Killed
            num_left -= 1
            real[name](*args, **kwargs)

        return write

    monkeypatch.setattr(sr_var.sampling, "save_image", guarded("save_image"))
    monkeypatch.setattr(SampleMoments, "save", guarded("save"))
    folder, num_kills = tmp_path / "out", 0
    for num_writes in (0, 1, 2, 3, 5, 4, 2, 6, 100):
        num_left = num_writes
        try:
            assert make_sampler(tiny_data, folder).run_loop()
        except Killed:
            num_kills += 1
    assert num_kills == 8
    assert_same_pictures(folder, uninterrupted)
    for name in TEST_NAMES:
        assert_same_moments(stored(folder, name), stored(uninterrupted, name))


def test_moments_of_a_stopped_run_equal_those_of_an_uninterrupted_one_before_the_cast(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    """Both runs want one sample more than they draw, so that the file stays float64."""
    name, found = TEST_NAMES[0], []
    for sizes in ([5], [1, 3, 4, 5]):
        folder = tmp_path / str(len(sizes))
        for num in sizes:
            sampler = make_sampler(tiny_data, folder, entries=ENTRIES[:1])
            job = next(sampler._claim_jobs(0, NoBar()))  # type: ignore[arg-type]
            rows = [(job, index) for index in job.missing if index < num]
            job.num_wanted = NUM_SAMPLES + 1
            for start in range(0, len(rows), 4):
                bar = Progress(None, "", is_shown=False)
                samples = sampler._draw(rows[start : start + 4], NoStop(), bar)  # type: ignore[arg-type]
                assert samples is not None
                sampler._store(rows[start : start + 4], samples)
            sampler._let_go(of_all=True)
        with np.load(folder / name / "moments.npz") as file:
            assert file["mean"].dtype == np.float64
            found.append({key: file[key] for key in file})
    for key in found[0]:
        scale = np.abs(found[0][key]).max()
        np.testing.assert_allclose(found[0][key], found[1][key], rtol=0, atol=MOMENTS_RTOL * scale)


def test_record_of_seconds_that_a_killed_process_left_half_written_is_cleared(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path
) -> None:
    """By a run that has no sample to draw, too."""
    shutil.copytree(uninterrupted, tmp_path / "out")
    process = multiprocessing.get_context("fork").Process(target=int)
    process.start()
    process.join()
    left = atomic_file._temp_path(tmp_path / "out" / SECONDS_FILE).name
    left = left.replace(f".{os.getpid()}.", f".{process.pid}.")
    (tmp_path / "out" / left).touch()
    assert make_sampler(tiny_data, tmp_path / "out").run_loop()
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_gap_among_the_samples_is_filled_and_no_other_sample_is_touched(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path
) -> None:
    """Indices are looked at, not counted: with 0, 2, 3, 4 present only 1 is drawn."""
    shutil.copytree(uninterrupted, tmp_path / "out")
    folder = tmp_path / "out" / TEST_NAMES[1]
    (folder / "high_res_samples" / "sample_1.png").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}
    sampler = make_sampler(tiny_data, tmp_path / "out")
    evaluations = Evaluations(sampler._model, -1, None)
    assert sampler.run_loop()
    assert evaluations.num == 4  # one batch of four steps
    assert_same_pictures(tmp_path / "out", uninterrupted)
    changed = {path.name for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"low_res.png"}
    found = stored(tmp_path / "out", TEST_NAMES[1])
    assert_same_moments(found, stored(uninterrupted, TEST_NAMES[1]))
    assert found is not None and found.moments is not None
    assert found.moments.count == NUM_SAMPLES  # the sample drawn again is not counted twice


def test_finished_folder_is_not_drawn_again(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    sampler = make_sampler(tiny_data, tmp_path / "out")
    evaluations = Evaluations(sampler._model, 1, _kill)
    assert sampler.run_loop()
    assert evaluations.num == 0
    assert content(tmp_path / "out") == content(uninterrupted)


def test_more_samples_are_added_to_those_that_are_there(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path
) -> None:
    make_sampler(tiny_data, tmp_path, num_samples_per_image=2).run_loop()
    make_sampler(tiny_data, tmp_path).run_loop()
    assert_same_pictures(tmp_path, uninterrupted)
    for name in TEST_NAMES:
        assert_same_moments(stored(tmp_path, name), stored(uninterrupted, name))


def test_folder_of_pictures_without_moments_is_completed_as_pictures_only(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path
) -> None:
    """Samples of another tool stay as they are; their float moments are not made up."""
    shutil.copytree(uninterrupted, tmp_path / "out")
    folder = tmp_path / "out" / TEST_NAMES[0]
    (folder / "moments.npz").unlink()
    foreign = (folder / "high_res_samples" / "sample_3.png").read_bytes()
    (folder / "high_res_samples" / "sample_0.png").write_bytes(foreign)
    (folder / "high_res_samples" / "sample_2.png").unlink()
    lines: list[str] = []
    assert make_sampler(tiny_data, tmp_path / "out", log=lines.append).run_loop()
    assert [line for line in lines if "without moments.npz" in line and str(folder) in line]
    assert not (folder / "moments.npz").exists()
    assert (folder / "high_res_samples" / "sample_0.png").read_bytes() == foreign
    expected = pictures(uninterrupted, TEST_NAMES[0])
    found = pictures(tmp_path / "out", TEST_NAMES[0])
    assert np.array_equal(found[2], expected[2]) and len(found) == NUM_SAMPLES


def test_missing_low_res_picture_is_written_again(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    (tmp_path / "out" / TEST_NAMES[2] / "low_res.png").unlink()
    assert make_sampler(tiny_data, tmp_path / "out").run_loop()
    assert content(tmp_path / "out") == content(uninterrupted)


def test_missing_indices_are_those_without_picture_or_count(tmp_path: Path) -> None:
    folder = str(tmp_path)
    os.makedirs(os.path.dirname(sample_path(folder, 0)))
    for index in (0, 2, 3):
        Path(sample_path(folder, index)).touch()
    assert missing_indices(folder, 5, None) == [1, 4]
    samples = np.zeros((3, 2, 2, 3))
    counted = SampleMoments().add(samples, [0, 1, 3])
    assert missing_indices(folder, 5, counted) == [1, 2, 4]


def test_picture_that_is_a_link_to_nothing_is_missing(tmp_path: Path) -> None:
    folder = str(tmp_path)
    os.makedirs(os.path.dirname(sample_path(folder, 0)))
    for name in ("sample_07.png", "sample_1.jpg", "sample_5.png.tmp"):
        (tmp_path / "high_res_samples" / name).touch()
    Path(sample_path(folder, 1)).touch()
    Path(sample_path(folder, 2)).symlink_to("nothing")
    assert pictures_in(folder) == {1} and pictures_in(str(tmp_path / "none")) == set()
    assert missing_indices(folder, 3, None) == [0, 2]


def test_of_finished_images_moments_are_only_counted(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    Path(sample_path(str(tmp_path / "out" / TEST_NAMES[0]), 3)).unlink()
    loaded, plain = [], sr_var.sampling.load_moments

    def counting(path: str) -> SampleMoments | None:
        loaded.append(Path(path).parent.name)
        return plain(path)

    monkeypatch.setattr(sr_var.sampling, "load_moments", counting)
    assert make_sampler(tiny_data, tmp_path / "out").run_loop()
    assert loaded == TEST_NAMES[:1]


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 1.0])
def test_damaged_moments_of_a_finished_image_are_refused(
    tmp_path: Path, tiny_data: TinyData, uninterrupted: Path, place: float
) -> None:
    shutil.copytree(uninterrupted, tmp_path / "out")
    path = tmp_path / "out" / TEST_NAMES[1] / "moments.npz"
    whole = bytearray(path.read_bytes())
    whole[int(place * (len(whole) - 1))] ^= 0x55
    path.write_bytes(whole if place < 1 else whole[:-30])
    with pytest.raises(DataError, match=r"moments\.npz .*delete"):
        make_sampler(tiny_data, tmp_path / "out").run_loop()


def test_image_that_another_process_works_on_is_left_to_it(
    tmp_path: Path, tiny_data: TinyData
) -> None:
    busy = make_sampler(tiny_data, tmp_path)
    job = next(busy._claim_jobs(1, NoBar()))  # type: ignore[arg-type]
    assert job.name == TEST_NAMES[1]
    assert make_sampler(tiny_data, tmp_path).run_loop()
    assert [len(pictures(tmp_path, name)) for name in TEST_NAMES] == [NUM_SAMPLES, 0, NUM_SAMPLES]
    busy._let_go(of_all=True)
    assert make_sampler(tiny_data, tmp_path).run_loop()
    assert len(pictures(tmp_path, TEST_NAMES[1])) == NUM_SAMPLES


def _die_while_writing(path: Path) -> None:
    with atomic_write(path) as file:
        file.write(b"half a picture")
        file.flush()
        os._exit(9)


def test_half_written_files_of_a_dead_sampler_go(tmp_path: Path, tiny_data: TinyData) -> None:
    for path in (Path("moments.npz"), Path("high_res_samples", "sample_0.png")):
        half_written = tmp_path / TEST_NAMES[0] / path
        half_written.parent.mkdir(parents=True, exist_ok=True)
        process = multiprocessing.get_context("fork").Process(
            target=_die_while_writing, args=(half_written,)
        )
        process.start()
        process.join()
        assert process.exitcode == 9
    assert len(list(tmp_path.rglob("*.tmp"))) == 2
    make_sampler(tiny_data, tmp_path, num_samples_per_image=1).run_loop()
    assert not list(tmp_path.rglob("*.tmp"))
