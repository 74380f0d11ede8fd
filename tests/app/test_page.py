"""The page in Chromium, wide and narrow: an image, its pixels, samples, and what goes wrong."""

from __future__ import annotations

import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.app.conftest import Server, foreign
from tests.tiny import photo

if TYPE_CHECKING:
    from tests.browser.driver import Browser

pytestmark = pytest.mark.browser

_PICTURES = "return [...document.querySelectorAll('.image-frame img')].map((i) => i.naturalWidth)"

# the button of these words, once it can be pressed
_BUTTON = (
    "return [...document.querySelectorAll('button')]"
    ".find((b) => b.innerText.trim() === '%s' && !b.disabled)"
)


def _open(browser: Browser, server: Server, width: int) -> None:
    browser.emulate(width=width, scheme="light")
    browser.driver.get(server.url)
    browser.until("return document.querySelector('input[type=file]')")


def _place(browser: Browser) -> list[int]:
    """Column and row of the pixel that the page tells of."""
    head = browser.texts(".prose table th")[0]
    return [int(one) for one in head.removeprefix("pixel ").split(", ")]


def _send(browser: Browser, path: Path) -> None:
    browser.find("input[type=file]").send_keys(str(path))


@pytest.mark.parametrize("width", [1280, 390])
def test_image_becomes_mean_and_std_with_values_of_pixels(
    browser: Browser, server: Server, tmp_path: Path, width: int
) -> None:
    Image.fromarray(photo(1, (30, 40))).save(tmp_path / "in.png")
    _open(browser, server, width)
    _send(browser, tmp_path / "in.png")
    browser.until(f"return JSON.stringify(({_PICTURES[7:]})) === '[40,160,160,160,160]'")
    mean = browser.all(".image-frame img")[1]
    browser.run("arguments[0].scrollIntoView({block: 'center'})", mean)
    mean.click()
    browser.until("return document.querySelectorAll('.prose td').length === 12")
    cells = browser.texts(".prose table th, .prose table td")
    assert cells[0].startswith("pixel ") and cells[3:5] == ["90 % interval", "red"]
    x, y = _place(browser)
    assert abs(x - 80) <= 1 and abs(y - 60) <= 1
    low, high = map(float, cells[7].split(" to "))
    middle, std = map(float, cells[5:7])
    assert low + high == pytest.approx(2 * middle, abs=0.2)
    assert high - middle == pytest.approx(1.645 * std, abs=0.2)
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    browser.run("arguments[0].click()", browser.until(_BUTTON % "Download everything"))
    for _ in range(300):
        if (tmp_path / "result.zip").exists():
            break
        time.sleep(0.1)
    with zipfile.ZipFile(tmp_path / "result.zip") as archive:
        assert {"result.npz", "result.json", "std.png"} <= set(archive.namelist())
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert foreign(browser, server) == []


def test_what_is_no_image_gets_one_line(browser: Browser, server: Server, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"GIF89a" + bytes(50))
    _open(browser, server, 1280)
    _send(browser, tmp_path / "bad.png")
    text = browser.until("return document.querySelector('.toast-body')?.textContent")
    assert "none of JPEG, PNG, WEBP, BMP" in text and "Traceback" not in text


def test_samples_are_drawn_and_their_command_is_shown(browser: Browser, server: Server) -> None:
    _open(browser, server, 1280)
    browser.run("document.querySelectorAll('button[role=tab]')[1].click()")
    browser.run("arguments[0].click()", browser.until(_BUTTON % "Draw"))
    browser.until("return document.querySelectorAll('.grid-container img').length === 8")
    assert any("image_sample.py" in text for text in browser.texts(".prose code"))
    assert foreign(browser, server) == []
