"""The report in a real browser: nothing foreign runs, and mouse and keyboard reach everything."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

from sr_var.verify.show.tables import METRIC_LABELS
from tests.browser.conftest import LARGE_SIDE, NUM_SAMPLES, SIDE, Report
from tests.browser.driver import Browser
from tests.sr_var.verify.show.report_data import HOSTILE

pytestmark = pytest.mark.browser

_GREEN = 1
_FOCUSED = "return document.activeElement"


def _said(browser: Browser, words: str) -> str:
    """What the screen reader is told, once it holds the words."""
    script = (
        "const text = document.getElementById('announcer').textContent;"
        "return text.includes(arguments[0]) && text"
    )
    return str(browser.until(script, words))


def _readout(browser: Browser, card: int) -> str:
    return browser.texts(".readout")[card]


def _numbers(text: str, route: str) -> list[float]:
    found = re.search(rf"{route} ?([\d.]+)(?: ± ([\d.]+))?", text)
    assert found, text
    return [float(value) for value in found.groups() if value is not None]


def _names(browser: Browser) -> list[str]:
    return browser.texts(".card h3 bdi")


@pytest.mark.parametrize("page", ["full", "plain"])
def test_page_loads_without_a_word_in_the_console_and_fetches_nothing(
    browser: Browser, page: str, request: pytest.FixtureRequest
) -> None:
    browser.open(request.getfixturevalue(page).path)
    fetched = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith("data:") for name in fetched)
    assert browser.texts("h1") == ["Super-resolution: nets against samples"]


def test_policy_refuses_markup_styles_and_scripts_from_elsewhere(
    browser: Browser, full: Report
) -> None:
    browser.open(full.path)
    refused = browser.run("""
        const refused = [];
        const note = (event) => refused.push(event.violatedDirective);
        document.addEventListener('securitypolicyviolation', note);
        try { document.body.innerHTML = '<b>x</b>'; } catch (error) { refused.push(error.name); }
        const script = document.createElement('script');
        try { script.textContent = 'window.pwned = 1'; document.body.append(script); }
        catch (error) { refused.push(error.name); }
        document.body.setAttribute('style', 'padding-top: 77px');
        return [refused, getComputedStyle(document.body).paddingTop, window.pwned ?? null];
    """)
    assert "TypeError" in refused[0]
    assert refused[1] != "77px" and refused[2] is None
    assert browser.console()  # each refusal is on record; the fixture wants the rest to be silent


def test_hostile_name_is_shown_as_the_text_it_is(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    assert _names(browser)[1].startswith(HOSTILE)
    assert browser.run("return document.querySelectorAll('img[src=x], [onerror]').length") == 0
    assert len(browser.all("script")) == 2
    viewer = browser.all(".viewer")[1]
    assert str(viewer.get_dom_attribute("aria-label")).startswith(f"Pixels of {HOSTILE}")


@pytest.mark.parametrize("name", ["mean.psnr", "edges.std_at_edges"])
def test_images_are_sorted_by_any_metric_both_ways_with_unknown_ones_last(
    browser: Browser, full: Report, name: str
) -> None:
    browser.open(full.path)
    label, values = METRIC_LABELS[name], [row.metrics[name] for row in full.rows]
    known = [i for i in range(len(values)) if np.isfinite(values[i])]
    rest = [i for i in range(len(values)) if i not in known]
    listed = _names(browser)
    ascending = sorted(known, key=values.__getitem__)
    Select(browser.find("#sort")).select_by_visible_text(label)
    assert _names(browser) == [listed[i] for i in ascending + rest]
    assert f"Images by {label}, ascending" in _said(browser, "ascending")
    browser.click("#order")
    assert _names(browser) == [listed[i] for i in ascending[::-1] + rest]
    assert "descending" in _said(browser, "descending")
    first = full.rows[ascending[-1]].metrics[name]
    assert f"{first:.4g}" in browser.texts(".card .sorted")[0]
    Select(browser.find("#sort")).select_by_visible_text("order of the list")
    browser.click("#order")
    assert _names(browser) == listed


def test_mouse_shows_what_every_route_says_of_a_pixel(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    row, column = 9, 21
    for panel in (0, 4):  # a picture and a map
        frame = browser.all(".card:nth-child(3) .frame")[panel]
        browser.point(frame, (column + 0.5) / SIDE, (row + 0.5) / SIDE)
        browser.until(
            "return document.querySelectorAll('.readout')[2].textContent.includes(arguments[0])",
            f"Row {row}, column {column}",
        )
        _check_readout(_readout(browser, 2), full, 2, row, column)
    said = _said(browser, "three.png")
    assert f"row {row}, column {column}: real {int(full.data[2].high_res[row, column, 1])}" in said
    assert len(browser.all(".card:nth-child(3) .cross .over")) == 6


def _check_readout(text: str, report: Report, image: int, row: int, column: int) -> None:
    data, place = report.data[image], (row, column, _GREEN)
    assert _numbers(text, "real image") == [data.high_res[place]]
    for route, mean, variance in (
        ("nets", data.mean, data.variance),
        ("samples", data.samples.mean, data.samples.variance),
    ):
        found = _numbers(text.replace("real image", ""), route)
        assert found[0] == pytest.approx(mean[place], abs=0.51)
        assert found[1] == pytest.approx(np.sqrt(variance[place]), rel=0.05, abs=0.1)


def test_histogram_of_a_pixel_is_that_of_its_samples(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    browser.point(browser.all(".card .frame")[0], 5.5 / SIDE, 3.5 / SIDE)
    browser.until("return document.querySelector('.histogram')")
    label = str(browser.find(".histogram").get_dom_attribute("aria-label"))
    samples = full.samples[0][:, 3, 5, _GREEN].astype(int)
    parts = re.findall(r"(\d+) % (?:at (\d+)|(\d+) to (\d+))", label)
    assert sum(int(share) for share, *_ in parts) == pytest.approx(100, abs=len(parts))
    for share, at, low, high in parts[1:-1]:  # the outermost hold all beyond
        first, last = int(at or low), int(at or high)
        inside = np.count_nonzero((samples >= first) & (samples <= last))
        assert round(100 * inside / NUM_SAMPLES) == pytest.approx(int(share), abs=1)
    assert len(browser.all(".histogram rect")) == 15


def test_histogram_at_a_stride_says_which_block_it_is_of(browser: Browser, plain: Report) -> None:
    browser.open(plain.path)
    assert browser.all("#channel") == []
    browser.point(browser.all(".card .frame")[0], 51.5 / LARGE_SIDE, 31.5 / LARGE_SIDE)
    browser.until("return document.querySelector('.histogram')")
    text = _readout(browser, 0)
    row, column = (int(part) for part in re.findall(r"(?:Row|, column) (\d+)", text)[:2])
    assert (row, column) == pytest.approx((31, 51), abs=1)  # a mouse stands on whole pixels
    assert f"block of row {row // 2 * 2}, column {column // 2 * 2}" in text


def test_all_images_are_shown_on_request(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    shown = (
        "return [...document.querySelectorAll('.card')].filter((c) => c.checkVisibility()).length"
    )
    assert browser.run(shown) == 4 < len(full.rows)
    browser.click("#more")
    assert browser.run(shown) == len(full.rows) and browser.all("#more") == []
    assert "are shown" in _said(browser, f"All {len(full.rows)} images")
    assert browser.run(_FOCUSED) == browser.all(".viewer")[4]


def test_meaning_of_a_metric_unfolds(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    script = "return document.querySelector('details.meaning').innerText.split('\\n').length"
    assert browser.run(script) == 1
    browser.click("details.meaning summary")
    assert browser.run(script) > 1


def test_image_without_sample_pictures_says_so(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    browser.point(browser.all(".card:nth-child(4) .frame")[1], 0.5, 0.5)
    browser.until("return document.querySelectorAll('.readout')[3].textContent.includes('Row')")
    assert "no histogram" in _readout(browser, 3)


def test_arrow_keys_move_the_cross_hair_and_are_read_out(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    browser.click("#own-scale")
    browser.press(Keys.TAB)
    assert browser.run(_FOCUSED).get_dom_attribute("class") == "viewer"
    middle = SIDE // 2
    assert f"row {middle}, column {middle}" in _said(browser, "row")
    steps = [Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_LEFT]
    scrolled = browser.run("return scrollY")
    browser.press(*steps)
    assert full.rows[0].name in _said(browser, f"row {middle - 2}, column {middle - 1}")
    assert browser.run("return scrollY") == scrolled
    _check_readout(_readout(browser, 0), full, 0, middle - 2, middle - 1)
    browser.press(Keys.END)
    _said(browser, f"row {middle - 2}, column {SIDE - 1}")
    browser.press(Keys.ARROW_RIGHT, Keys.HOME, *[Keys.ARROW_DOWN] * SIDE)
    _said(browser, f"row {SIDE - 1}, column 0")


def test_channel_choice_changes_the_numbers(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    browser.point(browser.all(".card .frame")[0], 0.3, 0.3)
    browser.until("return document.querySelector('.histogram')")
    place = int(0.3 * SIDE)
    for channel, name in ((2, "blue"), (0, "red")):
        Select(browser.find("#channel")).select_by_visible_text(name)
        browser.until(
            "return document.querySelector('.where').textContent.includes(arguments[0])", name
        )
        real = full.data[0].high_res[place, place, channel]
        assert _numbers(_readout(browser, 0), "real image") == [real]


def test_std_map_has_the_colours_of_the_scale(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    browser.until("return document.querySelector('.card .note').textContent.includes('Colours')")
    script = """
        const canvas = document.querySelectorAll('.card canvas')[1];
        return [...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data];
    """
    shown = np.array(browser.run(script)).reshape(SIDE, SIDE, 4)[..., :3]
    top = browser.run("return JSON.parse(document.getElementById('gallery-data').textContent).top")
    std = np.sqrt(full.data[0].variance[..., _GREEN])
    wanted = 255 * matplotlib.colormaps["inferno"](np.clip(std / top, 0, 1))[..., :3]
    assert np.abs(shown - wanted).mean() < 2
