"""A server of the page with tiny networks, as `make app` starts it, for `make test-app`."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.image_ddpm.tiny import CLASSES, NET, PROCESS, TRAINING, named_images
from tests.pipeline import TRAINING as SMALL_TRAINING
from tests.sr_var.predict.conftest import Nets, subpixel_nets  # noqa: F401 - a fixture
from tests.sr_var.predict.pairs import SUBPIXEL
from tests.tiny import LARGE, ROOT, TinyData, done, words

if TYPE_CHECKING:
    from tests.browser.driver import Browser

MAX_PIXELS = 4000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in ("gradio", "selenium") if not importlib.util.find_spec(name)]
    skip = pytest.mark.skip(reason=f"no {' and '.join(missing)} here; make test-app has them")
    for item in items if missing else ():
        if "tests/app/" in item.nodeid:
            item.add_marker(skip)


@dataclass(frozen=True)
class Server:
    """A running sr_app.py.

    `folder` is where it may write; `said` are its lines so far.
    """

    url: str
    folder: Path
    said: list[str]

    def ask(
        self, path: str, data: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of an answer; a body is sent by POST."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        request = urllib.request.Request(self.url + path, data, named)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)


@pytest.fixture(scope="session")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three named classes, trained for a step."""
    root = tmp_path_factory.mktemp("denoiser")
    folders = {"data_dir": named_images(root / "images"), "log_dir": root / "log"}
    flags = {"sample_interval": 0, "max_step": 1, "model_save_dir": root / "save"}
    done("image_train", words(NET, CLASSES, PROCESS, TRAINING, flags, folders, class_dropout=0.5))
    return root / "save" / "ema_0.9_000001.pt"


@pytest.fixture(scope="session")
def masked_nets(tmp_path_factory: pytest.TempPathFactory, tiny_data: TinyData) -> Nets:
    """Networks that see a mask, and are told the noise of an image."""
    root = tmp_path_factory.mktemp("masked_nets")
    told = {"degradation": "noise:5-50+mask:0.1-0.9", "condition_on_level": True}
    net = {**SUBPIXEL, **told, "small_size": LARGE, "max_step": 1, "save_interval": 1}
    mean = root / "sr_mean" / "model000001.pt"
    for task, more in (("sr_mean", {}), ("sr_var", {"mean_model_path": mean})):
        folders = {"log_dir": root / f"log_{task}", "model_save_dir": root / task}
        done(f"{task}_train", words(tiny_data.train_flags, SMALL_TRAINING, net, folders, more))
    return Nets(mean, root / "sr_var" / mean.name)


@pytest.fixture(scope="session")
def server(
    tmp_path_factory: pytest.TempPathFactory,
    subpixel_nets: Nets,  # noqa: F811
    denoiser: Path,
) -> Iterator[Server]:
    """One server for all tests."""
    root = tmp_path_factory.mktemp("app")
    with serving(root, {**subpixel_nets.flags, "diffusion_model_path": denoiser}) as started:
        yield started


@pytest.fixture(scope="session")
def masked_server(tmp_path_factory: pytest.TempPathFactory, masked_nets: Nets) -> Iterator[Server]:
    """One of networks that see more than an image."""
    with serving(tmp_path_factory.mktemp("masked_app"), masked_nets.flags) as started:
        yield started


@contextlib.contextmanager
def serving(root: Path, nets: dict[str, Any]) -> Iterator[Server]:
    """A server of networks; it must end in order and leave nothing."""
    temp = root / "temp"
    temp.mkdir()
    limits = {"port": 0, "max_upload": 1, "max_pixels": MAX_PIXELS}
    flags = {**nets, **limits, "log_dir": root / "log"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "sr_app.py"), *words(flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=root,
        env={**os.environ, "TMPDIR": str(temp), "OMP_NUM_THREADS": "1"},
    )
    said: list[str] = []
    started = threading.Event()

    def listen() -> None:
        for line in process.stdout or ():
            said.append(line.rstrip())
            if line.startswith("open "):
                started.set()
        started.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        started.wait(600)
        found = re.search(r"open (http://\S+)/", "\n".join(said))
        assert found, said
        yield Server(found[1], temp, said)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0 and said[-1] == "stopped; its files are removed", said
    assert not any(temp.glob("sr_app_*"))
    assert not any("sr_var/app" in line for line in said), said  # of a traceback


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests."""
    from tests.browser.driver import Browser

    paths = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if paths[0] is None or paths[1] is None:
        pytest.fail("chromium or chromedriver is missing: make test-app installs them")
    made = Browser(paths[0], paths[1], tmp_path_factory.mktemp("profile"))
    made.patience = 120  # networks compute, and a process starts
    try:
        yield made
    finally:
        made.quit()


def foreign(browser: Any, server: Server) -> list[str]:
    """What the page loaded from elsewhere."""
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    found: list[str] = browser.run(script)
    return [name for name in found if not name.startswith((server.url, "blob:", "data:"))]
