"""`weightdecay report`: the page of a run."""

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer


def report(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that a command wrote.")],
    out: Annotated[Path | None, typer.Option(help="The file to write. [FOLDER/report.html]")] = None,
    show: Annotated[bool, typer.Option("--open", help="Open it when done.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that is not a page of this program's.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")] = False,
) -> None:
    """Write the page that explains a run: one HTML file that works offline, in English and Chinese.

    weightdecay report runs/textbook --open

    The folder is one that `weightdecay textbook` wrote.
    """
    from weightdecay.reports.report import report as write
    from weightdecay.textbook.record import load_run

    path = write(load_run(folder), folder / "report.html" if out is None else out, force=force)
    if not quiet:
        print(f"written: {path}")
    if show:
        open_page(path, quiet)


def open_page(path: Path, quiet: bool) -> None:
    """Show a file in the browser, or say where it is."""
    if not webbrowser.open(path.resolve().as_uri()) and not quiet:
        print(f"no browser was found; the page is {path}", file=sys.stderr)
