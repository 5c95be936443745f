"""Chromium for the tests of pages."""

import contextlib
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
browsing = pytest.mark.skipif(
    CHROMIUM is None, reason="NO BROWSER: apt install chromium; the page is not tested"
)


@contextlib.contextmanager
def opened(browser, path, fragment="", **context):
    """A page without a network; afterwards: nothing on the console, no request but for the page itself."""
    said, asked = [], []
    with browser.new_context(offline=True, **context) as alone:
        page = alone.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url.split("#")[0]))
        page.goto(path.as_uri() + fragment)
        yield page
    assert said == []
    assert asked == [path.as_uri()]
