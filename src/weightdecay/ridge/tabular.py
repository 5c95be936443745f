"""Tables of a ridge fit: inputs, targets, groups and weights of a file; and a file of new rows, in blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from weightdecay.errors import InputError
from weightdecay.memory import available
from weightdecay.ridge.matching import check_names
from weightdecay.tables.cells import listed, separator_hint
from weightdecay.tables.whole import numeric, read_rows

ENDINGS = (".csv", ".parquet")
CELLS = 4_000_000  # of a block: 32 MB in float64


@dataclass(frozen=True)
class ForRidge:
    """The columns of a table by what they are for.

    Args:
        X: the inputs, float64.
        y: the targets, float64.
        groups: a label for each row, or None.
        weights: a weight for each row, or None.
        rows: the rows' numbers in the file, from 1.
        kept: whether a row has a weight above 0.
    """

    X: pl.DataFrame
    y: pl.DataFrame
    groups: np.ndarray | None
    weights: np.ndarray | None
    rows: pl.Series
    kept: pl.Series


def read_for_ridge(
    path: str | Path,
    targets: Sequence[str],
    drop: Sequence[str] = (),
    groups: str | None = None,
    weights: str | None = None,
) -> ForRidge:
    """Read a .csv or .parquet file whole.

    Raises:
        InputError: a file that cannot be read, a column that is missing, named twice, not numeric or wanted
            for two things, a cell that is empty or not finite (row and column named), a constant target.
    """
    path = Path(path)
    frame, rows = read_rows(path)
    aside = {"target": list(targets), "drop": list(drop)}
    aside |= {name: [column] for name, column in (("groups", groups), ("weights", weights)) if column}
    uses: dict[str, str] = {}
    for use, columns in aside.items():
        for name in columns:
            if name not in frame.columns:
                remedy = f"{path} has {listed(frame.columns)}{separator_hint(frame.columns)}"
                raise InputError("no such column", use, repr(name), remedy)
            if name in uses:
                twice = "twice" if uses[name] == use else f"as {uses[name]} and as {use}"
                raise InputError(f"a column is named {twice}", use, repr(name), "take one of them out")
            uses[name] = use
    inputs = [name for name in frame.columns if name not in uses]
    if not inputs:
        raise InputError("no column is left as an input", str(path), None, "drop fewer columns")
    numbers = frame.select(
        numeric(frame[name], rows, path) for name in (*inputs, *targets, *([weights] if weights else []))
    )
    kept = pl.Series([True]).new_from_index(0, frame.height)
    if weights:
        kept = _positive(numbers[weights], rows, path)
    used = numbers.select(targets).filter(kept)
    if used.height > 1 and all(used[name].n_unique() == 1 for name in targets):
        raise InputError(
            "the target is constant", f"column {targets[0]!r} in {path}", used[0, 0], "choose another"
        )
    return ForRidge(
        numbers.select(inputs),
        numbers.select(targets),
        _labels(frame[groups], rows, path).to_numpy() if groups else None,
        numbers[weights].to_numpy() if weights else None,
        rows,
        kept,
    )


def new_rows(
    path: str | Path, features: Sequence[str], ignored: Sequence[str] = ()
) -> Iterator[tuple[pl.Series, np.ndarray]]:
    """The columns that a model knows, in its order, in blocks of rows: their numbers in the file, and X.

    Args:
        path: a .csv or .parquet file, of any length.
        features: the model's columns.
        ignored: columns that may be there and are not wanted.

    Raises:
        InputError: a file that cannot be read, a column that is missing, unknown, there twice or not numeric,
            a cell that is empty or not finite (row and column named).
    """
    path = Path(path)
    frame = _scan(path)
    try:
        names = frame.collect_schema().names()
        twice = next((name for name in names if "_duplicated_" in name), None)
        if twice:
            name = twice.partition("_duplicated_")[0]
            raise InputError(
                "two columns have one name", f"column in {path}", repr(name), "rename one of them"
            )
        spare = set(ignored) - set(features)
        check_names([name for name in names if name not in spare], features, str(path))
        size = max(1, CELLS // len(features))
        first = 1
        wanted = frame.select(list(features))
        for batch in wanted.collect_batches(chunk_size=size, maintain_order=True):
            rows = pl.Series("row", np.arange(first, first + batch.height))
            first += batch.height
            blank = batch.select(pl.all_horizontal(pl.all().is_null())).to_series()
            batch, rows = batch.filter(~blank), rows.filter(~blank)
            if batch.height:
                yield rows, batch.select(numeric(batch[name], rows, path) for name in features).to_numpy()
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "the table cannot be read", str(path), reason, "check the path and the file"
        ) from error


def _scan(path: Path) -> pl.LazyFrame:
    # Cells of a CSV come as text: what type a column has is not known before its last row.
    if path.suffix.lower() == ".csv":
        return pl.scan_csv(path, infer_schema=False, glob=False)
    if path.suffix.lower() == ".parquet":
        return pl.scan_parquet(path, glob=False)
    raise InputError("not a table this program reads", "data", str(path), "give a .csv or .parquet file")


def row_names(path: str | Path, columns: Sequence[str], taken: Sequence[str]) -> pl.DataFrame:
    """Columns that name the rows of a file, as they stand there: texts of a CSV, any type of a Parquet file.

    Args:
        path: a .csv or .parquet file.
        columns: the columns' names.
        taken: names that other columns have where these are going to be written.

    Raises:
        InputError: a file that cannot be read, a column that is missing or has a name that is taken.
    """
    if not columns:
        return pl.DataFrame()
    path = Path(path)
    try:
        frame = _scan(path)
        names = frame.collect_schema().names()
        for name in columns:
            if name not in names:
                raise InputError("no such column", "id", repr(name), f"{path} has {listed(names)}")
            if name in taken or columns.count(name) > 1:
                what = "an identifier has the name of another column of the file that is written"
                raise InputError(what, "id", repr(name), "rename it in the table")
        return frame.select(columns).collect()
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "the table cannot be read", str(path), reason, "check the path and the file"
        ) from error


def of_rows(names: pl.DataFrame, rows: pl.Series) -> dict[str, pl.Series]:
    """What `row_names` has for these rows, numbered from 1, by column."""
    return {column.name: column.gather(rows - 1) for column in names.get_columns()}


def _labels(column: pl.Series, rows: pl.Series, path: Path) -> pl.Series:
    if column.null_count():
        place = f"row {rows[int(column.is_null().arg_true()[0])]}, column {column.name!r} of {path}"
        raise InputError("a row without a group", place, "empty", "fill it, or leave the row out")
    return column.cast(pl.String)


def _positive(weights: pl.Series, rows: pl.Series, path: Path) -> pl.Series:
    """Which rows have a weight above 0."""
    wrong = (weights < 0).arg_true()
    if len(wrong):
        place = f"row {rows[wrong[0]]}, column {weights.name!r} of {path}"
        raise InputError("a weight is negative", place, weights[wrong[0]], "give 0 or more")
    kept = weights > 0
    if kept.sum() < 2:
        what = "fewer than two rows have a weight above 0"
        raise InputError(what, f"column {weights.name!r} of {path}", kept.sum(), "give more")
    return kept


def count_rows(path: str | Path) -> int:
    """How many rows a .csv or .parquet file has, or all those of a folder, for a progress bar.

    Raises:
        InputError: it cannot be read.
    """
    path = Path(path)
    files = [file for file in path.iterdir() if file.suffix.lower() in ENDINGS] if path.is_dir() else [path]
    try:
        return sum(int(_scan(file).select(pl.len()).collect().item()) for file in files)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            "the table cannot be read", str(path), reason, "check the path and the file"
        ) from error


def is_large(path: str | Path) -> bool:
    """Whether a table is a folder, or its file is larger than a quarter of the memory that is left."""
    path = Path(path)
    if path.is_dir():
        return True
    memory = available()
    try:
        return memory is not None and path.stat().st_size > memory / 4
    except OSError:
        return False  # that it cannot be read is for who reads it to say
