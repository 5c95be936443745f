"""`weightdecay report`: the page of a run."""

import sys
import webbrowser
from pathlib import Path
from typing import Any

from weightdecay.cli.options import ReportOptions, command
from weightdecay.errors import InputError
from weightdecay.text import Text, local


@command
def report(options: ReportOptions) -> None:
    """Write the page that explains a run: one HTML file that works offline, in English and Chinese.

    weightdecay report runs/textbook --open

    The folder is one that textbook, fit or sweep wrote, or `Monitored.save`; or a file: the plan of an audit.
    """
    from weightdecay.logistic.record import LogisticModel
    from weightdecay.reports.report import write_page
    from weightdecay.ridge.model import RidgeModel
    from weightdecay.saving import load

    folder = options.folder
    usual = folder.with_suffix(".html") if folder.is_file() else folder / "report.html"
    try:
        result = load(folder)
    except InputError as error:
        if error.what != "no record of a run":
            raise
        raise InputError(error.what, "FOLDER", folder, error.remedy) from error
    if isinstance(result, RidgeModel | LogisticModel):
        remedy = Text(
            "give a folder that has its path, too, as fit writes it", "请给出 fit 写的、连同路径在内的文件夹"
        )
        raise InputError(Text("a model alone has no page", "单独的模型没有网页"), str(folder), None, remedy)
    held_out = _held_out(result, folder)
    try:
        path = write_page(
            result, usual if options.out is None else options.out, held_out, force=options.force
        )
    except InputError as error:
        if error.where != "result":
            raise
        raise InputError(error.what, str(folder), error.value, error.remedy) from error
    if not options.quiet:
        print(local(Text(f"written: {path}", f"已写入：{path}")))
    if options.show:
        open_page(path, options.quiet)


def _held_out(result: Any, folder: Path) -> Any:
    """What fit has kept of held-out rows beside a path, if it has."""
    from weightdecay.logistic.record import LogisticPath
    from weightdecay.logistic.table_fit import load_worst
    from weightdecay.ridge.record import RidgePath
    from weightdecay.ridge.table_fit import NAME, load_held_out

    if not (folder / NAME).exists():
        return None
    if isinstance(result, LogisticPath):
        return load_worst(folder, result)
    return load_held_out(folder, result) if isinstance(result, RidgePath) else None


def open_page(path: Path, quiet: bool) -> None:
    """Show a file in the browser, or say where it is."""
    if not webbrowser.open(path.resolve().as_uri()) and not quiet:
        line = Text(f"no browser was found; the page is {path}", f"没有找到浏览器；网页在 {path}")
        print(local(line), file=sys.stderr)
