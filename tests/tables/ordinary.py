"""One small table in the files that people have: each a dialect of its own, all with the same numbers."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


def small_table(texts: bool = False, rows: int = 40) -> pl.DataFrame:
    """Columns größe, b, price and y of numbers; with `texts` also city, member and day.

    Prices go from 10 to 2,000,000 with two decimals, as money does.
    """
    random = np.random.default_rng(0)
    size, b = np.round(random.normal(size=rows), 3), random.integers(-5, 6, rows)
    price = np.round(10 ** random.uniform(1, 6.3, rows), 2)
    y = np.round(size + b + np.log(price) + 0.1 * random.normal(size=rows), 3)
    columns: dict[str, Any] = {"größe": size, "b": b, "price": price, "y": y}
    if texts:
        columns["city"] = random.choice(["Paris", "Köln", "Zürich", "Málaga"], rows)
        columns["member"] = random.choice(["yes", "no"], rows)
        columns["day"] = [f"2024-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(rows)]
    return pl.DataFrame(columns)


def written(
    frame: pl.DataFrame,
    separator: str = ",",
    decimal: str = ".",
    thousands: str = "",
    end: str = "\n",
    quoted: bool = False,
) -> str:
    """A frame as text; a cell with the separator in it is quoted."""

    def cell(value: Any) -> str:
        if isinstance(value, float | int) and not isinstance(value, bool):
            text = f"{value:,}" if thousands else repr(value)
            value = text.replace(",", "T").replace(".", decimal).replace("T", thousands)
        text = "" if value is None else str(value)
        return f'"{text}"' if quoted or separator in text else text

    rows = [frame.columns, *frame.rows()]
    return "".join(separator.join(map(cell, row)) + end for row in rows)


@dataclass(frozen=True)
class Ordinary:
    """A file that people have.

    Args:
        name: of the file.
        content: frame -> its bytes; or None where `write` says how it is written.
        write: frame and path -> nothing.
        drop: columns that are no inputs.
        said: words of the note that the reader gives, or "" for none.
    """

    name: str
    content: Callable[[pl.DataFrame], bytes] | None = None
    write: Callable[[pl.DataFrame, Path], Any] | None = None
    drop: tuple[str, ...] = ()
    said: str = ""

    def into(self, folder: Path, frame: pl.DataFrame) -> Path:
        """Write the frame; returns the file."""
        path = folder / self.name
        if self.content is not None:
            path.write_bytes(self.content(frame))
        else:
            assert self.write is not None
            self.write(frame, path)
        return path


def _with_index(frame: pl.DataFrame) -> bytes:
    head, *rows = written(frame).splitlines()
    return "\n".join([f",{head}", *(f"{i},{row}" for i, row in enumerate(rows)), ""]).encode()


def _commented(frame: pl.DataFrame) -> bytes:
    lines = written(frame).splitlines()
    lines[5:5] = ['# a pause, and "an odd mark']
    return "\n".join(["# measured in 2024", "#", *lines, "# the end"]).encode()


ORDINARY = {
    "plain": Ordinary("t.csv", lambda t: written(t).encode()),
    "semicolons": Ordinary("t.csv", lambda t: written(t, ";").encode(), said="';'"),
    "tabs": Ordinary("t.tsv", lambda t: written(t, "\t").encode()),
    "tabs in .txt": Ordinary("t.txt", lambda t: written(t, "\t").encode()),
    "vertical bars": Ordinary("t.csv", lambda t: written(t, "|").encode(), said="'|'"),
    "decimal comma": Ordinary("t.csv", lambda t: written(t, ";", ",").encode(), said="decimal comma"),
    "decimal comma, tabs": Ordinary("t.tsv", lambda t: written(t, "\t", ",").encode(), said="decimal comma"),
    "gzip": Ordinary("t.csv.gz", lambda t: gzip.compress(written(t).encode())),
    "zstd": Ordinary("t.csv.zst", write=lambda t, path: t.lazy().sink_csv(path, compression="zstd")),
    "Latin-1": Ordinary("t.csv", lambda t: written(t, ";").encode("latin-1"), said="Windows-1252"),
    "Windows-1252, decimal comma": Ordinary(
        "t.csv", lambda t: written(t, ";", ",", end="\r\n").encode("cp1252"), said="Windows-1252"
    ),
    "UTF-16": Ordinary("t.txt", lambda t: written(t, "\t", end="\r\n").encode("utf-16")),
    "UTF-16 without a mark": Ordinary("t.csv", lambda t: written(t).encode("utf-16-le"), said="UTF-16"),
    "UTF-16, the other order": Ordinary("t.csv", lambda t: written(t).encode("utf-16-be"), said="UTF-16"),
    "byte order mark": Ordinary("t.csv", lambda t: written(t).encode("utf-8-sig")),
    "index without a name": Ordinary("t.csv", _with_index, drop=("",)),
    "comments": Ordinary("t.csv", _commented, said="comments"),
    "names in a comment": Ordinary("t.txt", lambda t: b"# " + written(t, "\t").encode()),
    "empty last column": Ordinary(
        "t.csv", lambda t: written(t, ";").replace("\n", ";\n").encode(), said="last column"
    ),
    "spaces after commas": Ordinary("t.csv", lambda t: written(t, quoted=True).replace(",", ", ").encode()),
    "thousands": Ordinary("t.csv", lambda t: written(t, thousands=",").encode(), said="','"),
    "thousands, no-break spaces": Ordinary(
        "t.csv", lambda t: written(t, ";", ",", "\u202f").encode(), said="' '"
    ),
    "thousands, points": Ordinary("t.csv", lambda t: written(t, ";", ",", ".").encode(), said="'.'"),
    "thousands, apostrophes": Ordinary("t.csv", lambda t: written(t, ";", ".", "'").encode(), said='"\'"'),
    "as Excel says it": Ordinary(
        "t.csv", lambda t: ("sep=;\r\n" + written(t, ";", end="\r\n")).encode(), said="';'"
    ),
    "all in quotes": Ordinary("t.csv", lambda t: written(t, quoted=True).encode()),
    "Parquet": Ordinary("t.parquet", write=lambda t, path: t.write_parquet(path)),
    "Feather": Ordinary("t.feather", write=lambda t, path: t.write_ipc(path, compression="lz4")),
    "Arrow": Ordinary("t.arrow", write=lambda t, path: t.write_ipc(path)),
}


def ordinary_files(folder: Path, frame: pl.DataFrame) -> dict[str, Path]:
    """Write a frame in every way, each into a folder of its own; returns the files by kind."""
    files = {}
    for place, (kind, file) in enumerate(ORDINARY.items()):
        (folder / str(place)).mkdir()
        files[kind] = file.into(folder / str(place), frame)
    return files
