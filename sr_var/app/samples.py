"""Samples of an image diffusion model, drawn by `image_sample.py`.

The script runs as a process of its own, as a user would start it: with its readers, its checks and
its words, and it can be ended at any time.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sr_var.app.results import Refused, Turns
from sr_var.app.wishes import Model, Wish
from utils.files.atomic import JsonObject
from utils.images.pictures import write_picture
from utils.process.errors import EXIT_STOPPED
from utils.untrusted.arrays import read_npz_rows

# folders of drawings that are kept
KEPT = 8
_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_UNFIT, _STOPPED, _FAILED = 422, 409, 500
# a line of `utils.process.progress`
_PROGRESS = re.compile(r"[a-z ]+: \d+/\d+ ")
_MOST_LINES = 100
# formats that no browser shows
_UNSHOWN = ("tif",)


class Job:
    """A drawing that waits, is under way or has ended; `said` is how far it is."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(16)
        self.said = "waiting for its turn"
        self._process: subprocess.Popen[str] | None = None
        self._is_stopped, self._guard = False, threading.Lock()

    def stop(self) -> None:
        """End it, whether it has begun or not."""
        with self._guard:
            self._is_stopped = True
            if self._process is not None:
                self._process.terminate()

    def start(self, words: Sequence[str]) -> subprocess.Popen[str]:
        """Its process.

        Raises:
            Refused: 409, it has been stopped.
        """
        with self._guard:
            if self._is_stopped:
                raise Refused(_STOPPED, "stopped")
            self.said = "loading the network"
            self._process = subprocess.Popen(
                [sys.executable, os.path.join(_ROOT, words[0]), *words[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            return self._process


@dataclass(frozen=True)
class Drawing:
    """What was drawn.

    Attributes:
        folder: of this drawing alone.
        pictures: path and class of each, in the format that was asked for.
        shown: the same, in one that a browser shows.
        archive: all files in one.
        command: what made them.
    """

    folder: str
    pictures: tuple[tuple[str, str], ...]
    shown: tuple[tuple[str, str], ...]
    archive: str
    command: str

    def as_json(self) -> JsonObject:
        """Command and pictures, each with its class and its file in base64."""
        pictures = []
        for path, label in self.pictures:
            with open(path, "rb") as file:
                data = base64.b64encode(file.read()).decode("ascii")
            pictures.append({"name": os.path.basename(path), "label": label, "base64": data})
        return {"command": self.command, "pictures": pictures}


class Sampling:
    """Draws samples, one drawing at a time, each in a folder below `folder`.

    Args:
        models: what may be drawn of, by name; the first one is the usual.
        turns: shared with whatever else computes.
        max_seconds, max_samples: of a drawing.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        folder: str,
        turns: Turns,
        *,
        max_seconds: int,
        max_samples: int,
    ) -> None:
        self.models, self.max_samples = models, max_samples
        self._folder, self._turns, self._max_seconds = folder, turns, max_seconds
        self._kept, self._guard = list[str](), threading.Lock()

    def model(self, name: str) -> Model:
        """A model by its name, the first one for an empty name; Refused (422) for another."""
        if name and name not in self.models:
            raise Refused(_UNFIT, f"model {name!r}: give {', '.join(self.models)}")
        return self.models[name or next(iter(self.models))]

    def draw(self, wish: Wish, job: Job | None = None) -> Drawing:
        """Draw, when the turn comes.

        Raises:
            Refused: 422, what cannot be drawn; 409, stopped or too slow; 503, too many wait.
        """
        job = job or Job()
        folder = os.path.join(self._folder, job.name)
        words = self.model(wish.model).command(wish, folder, self.max_samples)
        try:
            with self._turns.take():
                self._run(words, job)
        except Refused:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        drawing = _drawing(folder, wish.image_format, words)
        with self._guard:
            self._kept.append(folder)
            old, self._kept = self._kept[:-KEPT], self._kept[-KEPT:]
        for one in old:
            shutil.rmtree(one, ignore_errors=True)
        return drawing

    def forget(self, drawing: Drawing) -> None:
        """Remove a drawing's folder."""
        with self._guard:
            self._kept = [one for one in self._kept if one != drawing.folder]
        shutil.rmtree(drawing.folder, ignore_errors=True)

    def _run(self, words: Sequence[str], job: Job) -> None:
        process, said = job.start(words), deque[str](maxlen=_MOST_LINES)
        is_late = threading.Event()

        def end() -> None:
            is_late.set()
            process.kill()

        timer = threading.Timer(self._max_seconds, end)
        timer.start()
        try:
            for line in process.stdout or ():
                said.append(line.strip())
                if _PROGRESS.match(said[-1]):
                    job.said = said[-1]
            process.wait()
        finally:
            timer.cancel()
            if process.poll() is None:
                process.kill()
                process.wait()
        if is_late.is_set():
            raise Refused(
                _STOPPED,
                f"ended after {self._max_seconds} s (--max_seconds); take fewer steps or images",
            )
        if process.returncode:
            lines = [line for line in said if line.startswith("error: ")]
            if lines:
                raise Refused(_UNFIT, lines[-1].removeprefix("error: "))
            is_stop = process.returncode in (EXIT_STOPPED, -15)
            raise Refused(
                _STOPPED if is_stop else _FAILED,
                "stopped" if is_stop else f"{words[0]} ended with {process.returncode}",
            )


def _drawing(folder: str, ending: str, words: Sequence[str]) -> Drawing:
    """What the script has left, with its archive."""
    pictures = _pictures(os.path.join(folder, ending))
    archive = os.path.join(folder, "samples.zip")
    with zipfile.ZipFile(archive, "w") as file:
        for name in sorted(os.listdir(folder)):
            if name.startswith("samples_") or name in ("classes.json", "grid.png"):
                file.write(os.path.join(folder, name), name)
        for path, _ in pictures:
            file.write(path, f"{ending}/{os.path.basename(path)}")
    own = ("--output_dir", "--log_dir")
    command = shlex.join(["python", *(w for w in words if not w.startswith(own)), "--log_dir=DIR"])
    shown = _shown(folder, pictures) if ending in _UNSHOWN else pictures
    return Drawing(folder, pictures, shown, archive, command)


def _pictures(folder: str) -> tuple[tuple[str, str], ...]:
    """Path and class of each picture `<label>_<name>_<index>.<ending>`, by index."""
    found = []
    for name in os.listdir(folder):
        before, _, index = os.path.splitext(name)[0].rpartition("_")
        found.append((index, os.path.join(folder, name), before.replace("_", " ", 1)))
    return tuple((path, caption) for _, path, caption in sorted(found))


def _shown(folder: str, pictures: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """The pictures once more, as PNG, from the samples themselves."""
    (file,) = (name for name in os.listdir(folder) if name.endswith(".npz"))
    sides = [int(side) for side in file.removesuffix(".npz").partition("_")[2].split("x")]
    num, height, width, channels = sides
    path, shown = os.path.join(folder, file), []
    rows = read_npz_rows(path, "arr_0", (num, height, width, channels), remedy="Draw them again")
    os.mkdir(os.path.join(folder, "shown"))
    for (picture, label), pixels in zip(pictures, rows, strict=True):
        name = os.path.splitext(os.path.basename(picture))[0]
        shown.append((os.path.join(folder, "shown", f"{name}.png"), label))
        write_picture(shown[-1][0], pixels[:, :, 0] if channels == 1 else pixels)
    return tuple(shown)
