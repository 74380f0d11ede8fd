"""The report for everyone: contrast, tab order, narrow windows, names of pictures."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from tests.browser.conftest import Report
from tests.browser.driver import Browser

pytestmark = pytest.mark.browser

_FOCUSED = "return document.activeElement"

CONTRAST = """
    const parse = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
      .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = (node) => {
      for (; node; node = node.parentElement) {
        const colour = parse(getComputedStyle(node).backgroundColor);
        if (colour.length === 3 || colour[3] > 0) return colour;
      }
      return [255, 255, 255];
    };
    for (const details of document.querySelectorAll('details')) details.open = true;
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement;
      const isShown = !['SCRIPT', 'NOSCRIPT'].includes(node.tagName);
      if (!walker.currentNode.data.trim() || !isShown) continue;
      const style = getComputedStyle(node);
      const colour = parse(node instanceof SVGElement ? style.fill : style.color);
      const [a, b] = [light(colour), light(ground(node))].sort((u, v) => v - u);
      found.push([(a + 0.05) / (b + 0.05), walker.currentNode.data.trim().slice(0, 30)]);
    }
    return [found.sort((u, v) => u[0] - v[0]), light(ground(document.body))];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_is_readable_in_light_and_dark(
    browser: Browser, full: Report, scheme: str
) -> None:
    browser.emulate(width=1200, scheme=scheme)
    browser.open(full.path)
    browser.point(browser.all(".card .frame")[0], 0.5, 0.5)
    browser.until("return document.querySelector('.histogram')")
    found, ground = browser.run(CONTRAST)
    assert len(found) > 200
    assert found[0][0] >= 4.5, found[:5]
    assert (ground < 0.05) == (scheme == "dark")


_SHOWN = """
    const kinds = 'a[href], select, button, input, summary, [tabindex="0"]';
    return [...document.querySelectorAll(kinds)].filter((node) => node.checkVisibility());
"""


def test_tab_reaches_everything_in_order_with_a_visible_focus(
    browser: Browser, full: Report
) -> None:
    browser.open(full.path)
    expected = browser.run(_SHOWN)
    reached: list[Any] = []
    for _ in expected:
        browser.press(Keys.TAB)
        reached.append(browser.run(_FOCUSED))
        outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
    assert reached == expected
    assert browser.run("return arguments[0].textContent", reached[0]) == "Skip to the content"


def test_skip_link_leads_to_the_content(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    browser.press(Keys.TAB, Keys.ENTER)
    assert browser.run(_FOCUSED).get_dom_attribute("id") == "content"


@pytest.mark.parametrize("width", [360, 800])
def test_narrow_window_needs_no_sideways_scrolling(
    browser: Browser, full: Report, width: int
) -> None:
    browser.emulate(width=width, scheme="light")
    browser.open(full.path)
    browser.point(browser.all(".card .frame")[0], 0.5, 0.5)
    assert browser.run("return document.documentElement.scrollWidth") <= width


def test_every_picture_and_plot_has_a_name(browser: Browser, full: Report) -> None:
    browser.open(full.path)
    nameless = browser.run("""
        const pictures = [...document.querySelectorAll('img, canvas, svg[role=img]')];
        return pictures.filter((node) => !(node.alt || node.getAttribute('aria-label')))
          .map((node) => node.outerHTML.slice(0, 80));
    """)
    assert nameless == []
    unnamed = browser.run("""
        return [...document.querySelectorAll('svg:not([role=img])')]
          .filter((node) => node.getAttribute('aria-hidden') !== 'true').length;
    """)
    assert unnamed == 0
