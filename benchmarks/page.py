"""How long a page takes until it can be used, and how large it is.

python benchmarks/page.py --repeats 7

Each page is opened from its file in a new window of headless Chromium, without a network. A page can be used
when its load event is over: its script has run by then, and has drawn every figure. Goal for the textbook's:
under 500 ms; its size at most 400 kB. The command that makes it: under 10 s in all.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import weightdecay as wd
from table import note

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        took = [_command(folder / "textbook") for _ in range(3)]
        print(f"weightdecay textbook --open: {_said(took, 1)} s")
        note("weightdecay textbook --open", "", took, "≤ 10", "s")
        pages = [folder / "textbook" / "report.html", _ridge(folder / "ridge.html")]
        if CHROMIUM is None:
            sys.exit("no Chromium here: pages were not opened")
        for page in pages:
            times = _open(page, repeats)
            size = page.stat().st_size / 1000
            name = page.parent.name if page.stem == "report" else page.stem
            print(f"{name:10} {size:5.0f} kB  {_said(times, 0)} ms")
            note(f"page of {name}, until it can be used", "", times, "≤ 500", "ms")
            note(f"page of {name}, its size", "", [size], "≤ 400", "kB")


def _said(values: list[float], digits: int) -> str:
    """Median, least and most."""
    median, low, high = (f"{one:.{digits}f}" for one in (statistics.median(values), min(values), max(values)))
    return f"{median} ({low} – {high})"


def _command(out: Path) -> float:
    """Seconds until the page is handed to a browser, which is `true` here."""
    begun = time.perf_counter()
    line = [sys.executable, "-m", "weightdecay", "textbook", "--quiet", "--open", "--out", str(out)]
    plain = {"BROWSER": "true", "PATH": "/usr/bin:/bin", "HOME": str(out.parent)}
    subprocess.run(line, check=True, env=plain)
    return time.perf_counter() - begun


def _ridge(page: Path) -> Path:
    torch.manual_seed(0)
    X = torch.randn(2000, 200, dtype=torch.float64)
    y = X[:, 0] + torch.randn(2000, dtype=torch.float64)
    return wd.report(wd.ridge_path(X, y), page, y=y)


def _open(page: Path, repeats: int) -> list[float]:
    """Milliseconds from the start of the navigation to the end of the load event."""
    from playwright.sync_api import sync_playwright

    times = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for _ in range(repeats):
            context = browser.new_context(offline=True)
            opened = context.new_page()
            opened.goto(page.as_uri())
            opened.wait_for_timeout(50)  # the event's own time is known a moment later
            times.append(float(opened.evaluate(LOADED)))
            context.close()
        browser.close()
    return times


if __name__ == "__main__":
    main()
