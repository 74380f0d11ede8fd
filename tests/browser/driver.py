"""What the tests ask of the browser, in few words."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import JavascriptException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

_FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage --force-color-profile=srgb"
)
_PATIENCE_SECONDS = 20


class Browser:
    """A headless Chromium with a profile of its own."""

    def __init__(self, chromium_path: str, driver_path: str, profile_dir: Path) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium_path
        for flag in [*_FLAGS.split(), f"--user-data-dir={profile_dir}"]:
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        # the driver listens on this machine: a proxy has no business in between
        os.environ["NO_PROXY"] = "localhost,127.0.0.1"
        self.patience = _PATIENCE_SECONDS
        self.driver = webdriver.Chrome(options=options, service=Service(driver_path))

    def quit(self) -> None:
        self.driver.quit()

    def emulate(self, *, width: int, scheme: str) -> None:
        """Sets the window's width in pixels, and whether people want it light or dark."""
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open(self, path: Path) -> None:
        """Loads a page and waits until its first image, if it shows any, is drawn."""
        self.driver.get(path.as_uri())
        if not self.run("return document.querySelector('.card')"):
            return
        # images are drawn when they come near the window; scrollIntoView would move, in newer
        # browsers, the place from which Tab goes on
        self.run("scrollTo(0, document.querySelector('.card').getBoundingClientRect().top)")
        self.until(
            "const card = document.querySelector('.card');"
            "return card.textContent.includes('Colours of this image')"
            " && [...card.querySelectorAll('img')].every((img) => img.naturalWidth > 0)"
        )

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def until(self, script: str, *arguments: Any) -> Any:
        """Waits until the script gives something true.

        One that fails is asked again, as a page that is being drawn may lack what it looks for.
        """
        wait = WebDriverWait(
            self.driver,
            self.patience,
            poll_frequency=0.05,
            ignored_exceptions=[JavascriptException],
        )
        return wait.until(lambda _: self.run(script, *arguments), script)

    def click(self, selector: str) -> None:
        """Clicks where nothing that stays at the top lies above it."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", self.find(selector))
        self.find(selector).click()

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [element.get_property("textContent") for element in self.all(selector)]  # type: ignore[misc]

    def press(self, *keys: str) -> None:
        """Presses keys one after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def point(self, element: WebElement, x_share: float, y_share: float) -> None:
        """Moves the mouse to a place inside an element."""
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        time.sleep(0.1)
        width, height = element.size["width"], element.size["height"]
        x, y = round((x_share - 0.5) * width), round((y_share - 0.5) * height)
        ActionChains(self.driver).move_to_element_with_offset(element, x, y).perform()

    def console(self) -> list[str]:
        """What the browser complained of since it was last asked: errors, policy violations."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]
