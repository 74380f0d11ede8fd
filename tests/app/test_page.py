"""The page in Chromium, wide and narrow: an image, its pixels, samples, and what goes wrong."""

from __future__ import annotations

import shlex
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
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


@pytest.mark.parametrize("width", [1280, 390])
def test_an_image_waits_for_its_mask_and_follows_its_level(
    browser: Browser, masked_server: Server, tmp_path: Path, width: int
) -> None:
    mask = np.full((30, 40), 255, np.uint8)
    mask[10:14] = 0
    for name, pixels in (("in", photo(1, (30, 40))), ("mask", mask)):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    _open(browser, masked_server, width)
    _send(browser, tmp_path / "in.png")
    hint = "[...document.querySelectorAll('.prose')].some((p) => p.innerText.includes('its mask'))"
    browser.until(f"return {hint}")
    browser.find("#mask input[type=file]").send_keys(str(tmp_path / "mask.png"))
    browser.until(f"return JSON.stringify(({_PICTURES[7:]})) === '[40,40,40,40,40,40]'")
    # the answer of a second event at once can be lost: its stream is just being closed
    asked = browser.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert sum("queue/join" in one for one in asked) == len(["image", "mask"])
    mean = "document.querySelectorAll('.image-frame img')[2].src"
    before = browser.run(f"return {mean}")
    level = browser.until(
        "return document.querySelector('input[type=number][aria-label*=\"Level of noise\"]')"
    )
    browser.run(
        "arguments[0].value = 49; arguments[0].dispatchEvent(new Event('input', {bubbles: true}));"
        "arguments[0].dispatchEvent(new Event('blur', {bubbles: true}))",
        level,
    )
    browser.until(f"return {mean} !== {before!r}")
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert foreign(browser, masked_server) == []


def test_what_is_no_image_gets_one_line(browser: Browser, server: Server, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"GIF89a" + bytes(50))
    _open(browser, server, 1280)
    _send(browser, tmp_path / "bad.png")
    text = browser.until("return document.querySelector('.toast-body')?.textContent")
    assert "none of JPEG, PNG, WEBP, BMP" in text and "Traceback" not in text


def _tab(browser: Browser, server: Server, name: str, width: int) -> None:
    _open(browser, server, width)
    browser.until(
        "const tab = [...document.querySelectorAll('button[role=tab]')]"
        ".find((one) => one.innerText.trim() === arguments[0]);"
        "if (tab.getAttribute('aria-selected') !== 'true') tab.click();"
        "return tab.getAttribute('aria-selected') === 'true'",
        name,
    )


def _choose(browser: Browser, label: str, value: str, section: str = "") -> None:
    """Choose in a list as a person does: unfold its section until it is seen, then click.

    A click on a heading can be lost while the page is still being drawn.
    """
    box = browser.until(
        "const [label, section] = arguments;"
        "const head = [...document.querySelectorAll('button.label-wrap')]"
        ".find((one) => section && one.innerText.trim().startsWith(section));"
        "if (head && !head.classList.contains('open')) head.click();"
        "return [...document.querySelectorAll(`input[aria-label='${label}']`)]"
        ".find((one) => one.getClientRects().length)",
        label,
        section,
    )
    browser.run("arguments[0].scrollIntoView({block: 'center'})", box)
    box.click()
    browser.until(
        "return [...document.querySelectorAll('ul[role=listbox] li')]"
        ".find((li) => li.getAttribute('aria-label') === arguments[0])",
        value,
    )
    browser.run(
        "[...document.querySelectorAll('ul[role=listbox] li')]"
        ".find((li) => li.getAttribute('aria-label') === arguments[0])"
        ".dispatchEvent(new MouseEvent('mousedown', {bubbles: true}))",
        value,
    )


@pytest.mark.parametrize("width", [1280, 390])
def test_samples_are_drawn_and_their_command_is_shown(
    browser: Browser, server: Server, width: int
) -> None:
    _tab(browser, server, "Samples", width)
    browser.run("arguments[0].click()", browser.until(_BUTTON % "Draw"))
    browser.until("return document.querySelectorAll('.grid-container img').length === 8")
    assert any("image_sample.py" in text for text in browser.texts(".prose code"))
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert foreign(browser, server) == []


def test_one_of_each_class_as_tif_is_shown_and_downloaded(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    _tab(browser, server, "Samples", 1280)
    for label, value in (("Class", "each"), ("Format", "tif"), ("Weights", "model000001.pt")):
        _choose(browser, label, value)
    _choose(browser, "Class", "each")  # of the other weights
    browser.run("arguments[0].click()", browser.until(_BUTTON % "Draw"))
    images = "[...document.querySelectorAll('.grid-container img')].map((i) => i.naturalWidth)"
    browser.until(f"return JSON.stringify({images}) === '[16,16,16]'")
    (command,) = [text for text in browser.texts(".prose code") if "image_sample" in text]
    assert "--labels=each" in command and "model000001.pt" in command
    where = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    there = _BUTTON % "Download everything"
    button = there.replace(".find(", ".filter((b) => b.offsetParent).find(")
    browser.run("arguments[0].click()", browser.until(button))
    for _ in range(300):
        if (tmp_path / "samples.zip").exists():
            break
        time.sleep(0.1)
    with zipfile.ZipFile(tmp_path / "samples.zip") as archive:
        assert len([name for name in archive.namelist() if name.startswith("tif/")]) == 3


def test_drawing_is_stopped_by_its_button(browser: Browser, server: Server) -> None:
    _tab(browser, server, "Samples", 1280)
    browser.run("arguments[0].click()", browser.until(_BUTTON % "Draw"))
    browser.until("return document.querySelector('#told').innerText.includes(' s: ')")
    browser.run("arguments[0].click()", browser.until(_BUTTON % "Stop"))
    assert browser.until("return document.querySelector('.toast-body')?.textContent").count("stop")
    browser.until("return document.querySelector('#told').innerText.trim() === ''")


@pytest.mark.parametrize("width", [1280, 390])
def test_training_is_a_command_that_follows_the_form(
    browser: Browser, server: Server, width: int
) -> None:
    from image_train import create_parser

    _tab(browser, server, "Training", width)
    shown = "document.querySelector('#command .cm-content').innerText"
    browser.until(f"return {shown}.includes('image_train.py')")
    _choose(browser, "optimizer", "muon")
    _choose(browser, "precision", "bf16", section="The machine")
    box = browser.until(
        "return [...document.querySelectorAll('label')]"
        ".find((l) => l.innerText.trim().startsWith('data_dir') && l.getClientRects().length)"
        ".querySelector('input, textarea')"
    )
    box.clear()
    box.send_keys("my photos; rm x")
    browser.until(f"return {shown}.includes('rm x') && {shown}.includes('bf16')")
    words = shlex.split(browser.run(f"return {shown}").replace("\n", " "))
    args = create_parser().parse_args(words[2:])
    assert (args.data_dir, args.optimizer, args.use_bf16) == ("my photos; rm x", "muon", True)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert foreign(browser, server) == []
