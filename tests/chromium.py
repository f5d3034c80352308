"""Pages in headless Chromium: what they say and ask for is noted."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def launched() -> Iterator[Any]:
    """Start the browser, or skip the tests of whoever needs it."""
    if PROGRAM is None:
        pytest.skip("no chromium is installed (apt install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=PROGRAM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


class Pages:
    """Opens pages, and notes what they say and whom they ask besides their own.

    Attributes:
        said: Lines of the console, errors, dialogs, and addresses of others.
    """

    def __init__(self, browser: Any, own: tuple[str, ...]) -> None:
        self.said: list[str] = []
        self._browser, self._own = browser, own
        self._contexts: list[Any] = []

    def open(self, url: str, width_px: int, height_px: int, scheme: str) -> Any:
        context = self._browser.new_context(
            viewport={"width": width_px, "height": height_px}, color_scheme=scheme
        )
        self._contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("dialog", lambda dialog: self.said.append(dialog.message))
        page.on("request", self._note)
        page.goto(url)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _note(self, request: Any) -> None:
        if not request.url.startswith(self._own):
            self.said.append(request.url)
