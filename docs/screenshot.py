"""A picture of a page, as Chromium draws it.

python docs/screenshot.py runs/textbook/report.html docs/pictures/textbook-page.png
"""

import argparse
import shutil
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]


def screenshot(page, picture, *, chinese=False, dark=False, width=1000, height=None):
    """Write the picture; the whole page, or its upper part of a height.

    Returns:
        Whether there is a Chromium here to draw it.
    """
    if CHROMIUM is None:
        return False
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        scheme = "dark" if dark else "light"
        context = browser.new_context(
            offline=True, color_scheme=scheme, viewport={"width": width, "height": height or 900}
        )
        opened = context.new_page()
        opened.goto(Path(page).resolve().as_uri() + ("#lang=zh" if chinese else ""))
        opened.wait_for_timeout(200)
        opened.screenshot(path=str(picture), full_page=height is None)
        browser.close()
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--chinese", action="store_true")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--height", type=int)
    given = vars(parser.parse_args())
    if not screenshot(given.pop("page"), given.pop("picture"), **given):
        print("no Chromium here: no picture")
