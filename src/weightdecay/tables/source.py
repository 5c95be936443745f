"""A table that is read in blocks: one file, or a folder of shards with the same columns."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.memory import available
from weightdecay.tables import csv_blocks, parquet_blocks
from weightdecay.tables.cells import (
    INDEX,
    MISSING,
    PLAIN,
    TOO_LARGE,
    Numerals,
    check_names,
    count_missing,
    listed,
    missing_cells,
    no_rows,
    no_such_column,
    numbers,
    refuse_cell,
    typed_name,
    unreadable,
)
from weightdecay.tables.columns import (
    NOTHING_SAID,
    SAMPLE,
    Cells,
    Coding,
    Column,
    ColumnOptions,
    Learned,
    Role,
    TargetKind,
    empty_cell,
    kind_of_target,
    learn,
    plain_coding,
    yes_or_no,
)
from weightdecay.tables.dialect import Reading, Shard, dialect_of
from weightdecay.text import Text

TEXT = (".csv", ".tsv", ".txt")
READERS = {
    **{f"{ending}{packed}": csv_blocks for ending in TEXT for packed in ("", ".gz", ".zst")},
    **dict.fromkeys((".parquet", ".feather", ".arrow"), parquet_blocks),
}
KINDS = Text(
    "a .csv, .tsv, .txt, .parquet, .feather or .arrow file",
    " .csv, .tsv, .txt, .parquet, .feather 或 .arrow 文件",
)
_GIVE = Text(f"give {KINDS}", f"请给{KINDS.zh}")
ROWS = 8192  # rows to a block; fewer where there are many columns
NUMBERS = 1 << 21


class RowBlock(NamedTuple):
    """Consecutive rows: inputs (b, p), targets (b, t), weights (b,) if a column holds them, and numbers.

    `rows` are their numbers in their file, from 1; blank lines of a CSV are no rows, but count. Rows that are
    left out because a cell is missing have weight 0; there are `left_out` of them.

    Their memory is used again some blocks later: copy what is to be kept.
    """

    X: Float[Tensor, "b p"]
    y: Float64[Tensor, "b t"]
    weights: Float64[Tensor, " b"] | None
    rows: Int64[Tensor, " b"]
    left_out: int = 0


class Held(NamedTuple):
    """Rows of a text table that were read to learn what its columns are, and are kept.

    Args:
        rows: their numbers from 0.
        shown: gives the cells as texts, for a message.
        columns: numbers, or texts where a column's are not plain.
    """

    rows: np.ndarray
    shown: Callable[[], list[pl.Series]]
    columns: dict[str, pl.Series]


@dataclass(frozen=True)
class Source:
    """Where rows come from, checked as far as names and types go.

    Args:
        shards: files in the order of their names.
        coding: how columns become inputs.
        targets: names of the target columns.
        weights: name of the column of weights, or None.
        dtype: of the inputs as read, float64 or float32.
        rows: how many there are, or None where that takes reading them (CSV).
        notes: what was found of how the files are written, in sentences.
        columns: what each column is.
        missing: what becomes of missing cells; None where new rows are read for a model.
        unseen: what becomes of levels that the coding does not know.
        groups: name of the column of group labels, or None.
        words: targets of yes and no, which are read as texts.
        classes: name of the column of class labels, where these are to be predicted and no targets.
        held: rows of each file that need not be read again; the first call of `blocks` uses them up.
    """

    shards: tuple[Shard, ...]
    coding: Coding
    targets: tuple[str, ...]
    weights: str | None
    dtype: torch.dtype
    rows: int | None
    notes: tuple[Text, ...] = ()
    columns: tuple[Column, ...] = ()
    missing: str | None = "refuse"
    unseen: str = "refuse"
    groups: str | None = None
    words: tuple[str, ...] = ()
    classes: str | None = None
    held: dict[str, list[Held]] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The inputs' names."""
        return self.coding.features

    @cached_property
    def others(self) -> tuple[str, ...]:
        """The columns of targets and weights."""
        return (*self.targets, *(() if self.weights is None else (self.weights,)))

    @cached_property
    def _others_as_numbers(self) -> tuple[str, ...]:
        return tuple(name for name in self.others if name not in self.words)

    def blocks(self, shards: Sequence[Shard] | None = None) -> Iterator[RowBlock]:
        """All rows, in blocks, every cell checked.

        Raises:
            InputError: an empty, NaN or infinite cell or a text (file, row and column named), a file that is
                gone, cut short or has no rows, a negative weight.
        """
        step = max(256, min(ROWS, NUMBERS // len(self.inputs)))
        for shard in self.shards if shards is None else shards:
            found = 0
            for rows, shown, X, rest, named in self._parts(shard, step):
                found += len(X)
                yield self._block(rows + 1, shown, X, rest, named, shard)
            if found == 0:
                raise no_rows(shard.path)

    def _parts(self, shard: Shard, step: int) -> Iterator[Any]:
        """Blocks as a reader gives them, of rows that are held or of the file."""
        held, coding = self.held.pop(shard.path, None), self.coding
        others, texts = self._others_as_numbers, (*coding.texts, *self.words)
        if held is None:
            reader = READERS[_ending(shard.path)]
            yield from reader.blocks(shard, coding.numbers, others, step, self.dtype, texts)
            return
        held.reverse()
        while held:
            rows, shown, columns = held.pop()  # let go of, one by one
            yield rows, shown, *csv_blocks.by_use(shard, columns, coding.numbers, others, texts)

    def labels(self, name: str) -> pl.Series:
        """A column as texts, null where a cell is missing, for the rows of all blocks."""
        column = pl.concat([READERS[_ending(shard.path)].labels(shard, name) for shard in self.shards])
        return column.set(column.is_in(MISSING), None)

    def _block(
        self,
        rows: np.ndarray,
        shown: Callable[[], list[pl.Series]],
        X: Tensor,
        rest: Tensor,
        named: list[pl.Series],
        shard: Shard,
    ) -> RowBlock:
        """Split a block by what its columns are for, as numbers."""

        def place(row: int, name: str) -> str:
            return f"row {rows[row]}, column {name!r} of {shard.path}"

        t, limit = len(self.targets), 1e300 if self.dtype == torch.float64 else 1e30
        passing = self.missing in ("drop", "mean") or (self.missing is None and self.coding.fills)
        empty = False
        try:
            for part in (X, rest):
                flat = part.numpy().ravel(order="K")  # as it lies: no copy
                with np.errstate(over="ignore", invalid="ignore"):
                    size = float(flat @ flat)
                if not size < limit:  # one quick pass finds NaN, infinite and large; another, where
                    cells = {column.name: column for column in shown()}
                    columns = [cells[name] for name in (*self.coding.numbers, *self._others_as_numbers)]
                    refuse_cell(columns, place, min(TOO_LARGE, limit**0.5), _numerals(shard), passing)
                    empty = True
            texts = len(self.coding.texts)
            X, without = self.coding.coded(X.to(self.dtype), named[:texts], place, passing, self.unseen)
            if self.words:
                rest = self._with_words(rest, named[texts:], place, passing)
                empty = True
        except InputError as error:
            if self.missing is None or not str(error.what).startswith("a cell is empty"):
                raise
            raise InputError(error.what, error.where, error.value, self._ways_on(error)) from None
        y, weights = rest[:, :t], None if self.weights is None else rest[:, t]
        left_out = 0
        if self.missing in ("drop", "mean") and (empty or without is not None):
            holes = rest.isnan().any(1)
            if self.missing == "drop":
                holes |= X.isnan().any(1)
                holes |= torch.zeros_like(holes) if without is None else torch.from_numpy(without)
                X = X.nan_to_num(0.0)
            left_out = int(holes.sum())
            y = y.nan_to_num(0.0)
            if left_out:
                weights = torch.ones(len(y), dtype=torch.float64) if weights is None else weights.clone()
                weights[holes] = 0.0
        if self.weights is not None and weights is not None and bool((weights < 0).any()):
            row = int((weights < 0).nonzero()[0])
            raise InputError(
                "a weight is negative",
                f"row {rows[row]}, column {self.weights!r} of {shard.path}",
                float(weights[row]),
                "weights are 0 or more",
            )
        return RowBlock(X, y, weights, torch.from_numpy(rows), left_out)

    def _with_words(
        self, rest: Tensor, words: list[pl.Series], place: Callable[[int, str], str], passing: bool
    ) -> Tensor:
        """Targets and weights, those of yes and no as 1 and 0."""
        columns = dict(zip(self._others_as_numbers, rest.unbind(1), strict=True))
        for name, column in zip(self.words, words, strict=True):
            values = yes_or_no(column, name, place)
            if np.isnan(values).any() and not passing:
                raise empty_cell(place(int(np.isnan(values).argmax()), name))
            columns[name] = torch.from_numpy(values)
        return torch.stack([columns[name] for name in self.others], 1)

    def _ways_on(self, error: InputError) -> str:
        """What to do about missing cells, with their number in each column."""
        if isinstance(error.value, float) and error.value == error.value:
            return error.remedy  # infinite, or too large
        return self.missing_cells()

    def missing_cells(self) -> Text:
        """How many cells each column misses, and what to do about that."""
        mean = None if self.classes is not None else "--missing mean"
        return missing_cells(self.raw(), "--missing drop", mean)

    @property
    def used(self) -> tuple[str, ...]:
        """The columns of which each row needs a cell."""
        aside = (name for name in (self.groups, self.classes) if name is not None)
        return (*self.coding.names, *self.others, *aside)

    def raw(self, names: Sequence[str] | None = None) -> Iterator[pl.DataFrame]:
        """Columns as they stand, by default those that are used."""
        for shard in self.shards:
            yield from READERS[_ending(shard.path)].raw(shard, self.used if names is None else names)


def open_source(
    path: str | Path,
    target: str | Sequence[str],
    drop: Sequence[str] = (),
    weights: str | None = None,
    dtype: torch.dtype | None = None,
    groups: str | None = None,
    reading: Reading | None = None,
    options: ColumnOptions = NOTHING_SAID,
    constants: bool = True,
    hold: bool = False,
    labelled: bool = False,
) -> Source:
    """Look at the columns of a file, or of all files of a folder: their first rows, and texts to the end.

    Args:
        path: a .csv, .tsv or .txt file, of which each may be packed (.gz, .zst), a .parquet, .feather or
            .arrow file; or a folder of such files, which are taken in the order of their names.
        target: the column or columns to predict; every other one is an input unless it is left out.
        drop: columns to leave out.
        weights: the column that holds a weight for each row.
        dtype: of the inputs; by default float32 if they are stored so, else float64.
        groups: the column of group labels, which is no input.
        reading: how files of text are written, where it is not to be found out.
        options: the options of columns: categories, numbers, dates, missing cells.
        constants: leave out columns that do not vary.
        hold: keep what is read of text tables to learn the columns: all of it will be wanted soon.
        labelled: the target is a class label, whatever its cells; blocks of rows then have no targets.

    Raises:
        InputError: no such file, no table in the folder, a column that is missing, named twice, without a
            name or wanted for two things, that holds dates or a category of too many levels; shards whose
            columns differ.
    """
    targets = (target,) if isinstance(target, str) else tuple(target)
    if not targets:
        raise InputError("no target", "target", None, "name the column to predict")
    classes = targets[0] if labelled else None
    shards, schemas = _files(path, reading)
    uses = _uses(shards[0].path, list(schemas[0]), targets, drop, weights, groups, options.ids)
    uses |= {} if classes is None else {classes: "class"}
    held: dict[str, list[Held]] = {}
    learned = _learned(
        shards, list(schemas[0]), uses, options, constants, held if hold else None
    ).or_refused()
    if dtype is None:
        single = all(schema[name] == pl.Float32 for schema in schemas for name in learned.coding.names)
        dtype = torch.float32 if single else torch.float64
    counts = [READERS[_ending(shard.path)].count(shard) for shard in shards]
    for shard, count in zip(shards, counts, strict=True):
        if count == 0:
            raise no_rows(shard.path)
    known = [count for count in counts if count is not None]
    return Source(
        tuple(shards),
        learned.coding,
        () if labelled else targets,
        weights,
        dtype,
        sum(known) if len(known) == len(counts) else None,
        _notes(shards),
        learned.columns,
        options.missing,
        groups=groups,
        words=learned.words,
        classes=classes,
        held=held,
    )


def look_at(
    path: str | Path,
    drop: Sequence[str] = (),
    weights: str | None = None,
    groups: str | None = None,
    reading: Reading | None = None,
    options: ColumnOptions = NOTHING_SAID,
) -> Learned:
    """Say what each column of a table is, before it is known which one is to be predicted.

    Args:
        path: the table, as of `open_source`.
        drop: columns to leave out.
        weights: the column that holds a weight for each row.
        groups: the column of group labels.
        reading: how files of text are written, where it is not to be found out.
        options: the options of columns.

    Raises:
        InputError: a table that cannot be read; a name that is no column, or is wanted for two things.
    """
    shards, schemas = _files(path, reading)
    uses = _uses(shards[0].path, list(schemas[0]), (), drop, weights, groups, options.ids)
    learned = _learned(shards, list(schemas[0]), uses, options)
    if is_large(path):
        return replace(learned, notes=_notes(shards))
    counts, refusals = {}, list(learned.refusals)
    source = Source(tuple(shards), learned.coding, (), weights, torch.float64, None, groups=groups)
    names = [column.name for column in learned.columns]
    count_missing(source.raw(names), counts)
    if options.missing == "refuse" and any(counts[name] for name in source.used):
        ways = source.missing_cells()
        refusals.append(InputError(Text("cells are missing", "有缺失的单元格"), shards[0].path, None, ways))
    columns = tuple(column._replace(missing=counts[column.name]) for column in learned.columns)
    return replace(learned, columns=columns, refusals=tuple(refusals), notes=_notes(shards))


def target_kind(path: str | Path, target: str, reading: Reading | None = None) -> TargetKind:
    """Say from its first rows whether a column holds numbers, texts, or yes and no.

    Args:
        path: the table, as of `open_source`.
        target: the column.
        reading: how files of text are written, where it is not to be found out.

    Raises:
        InputError: a table that cannot be read; no such column.
    """
    shards, schemas = _files(path, reading)
    names = list(schemas[0])
    if target not in names:
        raise no_such_column(target, names, "target", f"{shards[0].path} has")
    for frame in READERS[_ending(shards[0].path)].raw(shards[0], [target], SAMPLE):
        return kind_of_target(frame.to_series(), partial(numbers, numerals=_numerals(shards[0])))
    return "number"


def _files(path: str | Path, reading: Reading | None) -> tuple[list[Shard], list[dict[str, Any]]]:
    """The files of a table, and what their columns are called; they are alike."""
    shards = files_of(path, reading)
    schemas = [column_types(shard) for shard in shards]
    for shard, schema in zip(shards[1:], schemas[1:], strict=True):
        _same_columns(shards[0], schemas[0], shard, schema)
    return shards, schemas


def _numerals(shard: Shard) -> Numerals:
    return PLAIN if shard.dialect is None else shard.dialect.numerals


def _learned(
    shards: list[Shard],
    columns: list[str],
    uses: dict[str, Role],
    options: ColumnOptions,
    constants: bool = True,
    held: dict[str, list[Held]] | None = None,
) -> Learned:
    where = shards[0].path

    def through(measured: Sequence[str], texts: Sequence[str]) -> Iterator[pl.DataFrame]:
        wanted = [name for name in columns if uses.get(name) in (None, "target", "weights")]
        wanted = [name for name in wanted if name not in texts]
        for shard in shards:
            reader = READERS[_ending(shard.path)]
            if held is None or reader is not csv_blocks:
                yield from reader.raw(shard, [*measured, *texts])
                continue
            held[shard.path] = []
            for rows, shown, cells in csv_blocks.frames(shard, wanted, texts=texts):
                block = Held(rows, shown, dict(zip((*wanted, *texts), cells, strict=True)))
                held[shard.path].append(block)
                yield pl.DataFrame({name: block.columns[name] for name in (*measured, *texts)})

    def head(names: Sequence[str], rows: int) -> pl.DataFrame:
        parts: list[pl.DataFrame] = []
        for shard in shards:
            for frame in READERS[_ending(shard.path)].raw(shard, names, rows):
                parts.append(frame.head(rows))
                if sum(part.height for part in parts) >= rows:
                    return pl.concat(parts, how="vertical_relaxed")
        if sum(part.height for part in parts) == 0:
            raise no_rows(where)
        return pl.concat(parts, how="vertical_relaxed")

    cells = Cells(
        columns,
        head,
        through,
        partial(numbers, numerals=_numerals(shards[0])),
        where,
        lambda name: f"column {name!r} of {where}",
        lambda option, value: f"--{option} {typed_name(value)}",
    )
    return learn(cells, uses, options, constants)


def _ending(path: str | Path) -> str:
    endings = [ending.lower() for ending in Path(path).suffixes[-2:]]
    return "".join(endings) if endings and endings[-1] in (".gz", ".zst") else "".join(endings[-1:])


def files_of(path: str | Path, reading: Reading | None = None) -> list[Shard]:
    """A file, or those of a folder in the order of their names, with the dialect of each that is text.

    Raises:
        InputError: no such file, or one of another kind; no table in the folder; a text whose first lines
            cannot be read; something said of how text is written where no file is text.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if _ending(file) in READERS)
        # Beside tables of another kind, a .txt file is a note.
        files = [file for file in files if ".txt" not in file.suffixes] or files
        if not files:
            raise InputError(Text("no table in the folder", "文件夹里没有表格"), str(path), None, _GIVE)
    elif _ending(path) not in READERS:
        raise InputError(
            Text("not a table this program reads", "不是本程序能读的表格"), "data", str(path), _GIVE
        )
    elif not path.is_file():
        raise unreadable(
            str(path), Text("no such file", "没有这个文件"), Text("check the path", "请检查路径")
        )
    else:
        files = [path]
    text = {file for file in files if READERS[_ending(file)] is csv_blocks}
    if reading and not text:
        name, value = next((name, value) for name, value in asdict(reading).items() if value is not None)
        what = "only a table of text has a separator, an encoding and a decimal mark"
        raise InputError(what, name, repr(value), f"leave it out: {files[0].name} says them itself")
    return [Shard(str(file), dialect=dialect_of(file, reading) if file in text else None) for file in files]


def notes_of(path: str | Path, reading: Reading | None = None) -> tuple[Text, ...]:
    """What is found of how the files of a table are written, each sentence once."""
    return _notes(files_of(path, reading))


def _notes(shards: Sequence[Shard]) -> tuple[Text, ...]:
    return tuple(dict.fromkeys(note for shard in shards if shard.dialect for note in shard.dialect.notes))


def column_types(shard: Shard) -> dict[str, Any]:
    """Names and types of a file's columns; None where a type is only known cell by cell (CSV)."""
    return READERS[_ending(shard.path)].schema(shard)


def cells_of(shard: Shard, names: Sequence[str]) -> pl.DataFrame:
    """Some columns as they stand in a file, texts of a CSV; empty where a CSV has a blank line."""
    return READERS[_ending(shard.path)].cells(shard, names)


def row_count(shard: Shard) -> int:
    """How many rows a file has; a CSV is read for it."""
    known = READERS[_ending(shard.path)].count(shard)
    return csv_blocks.row_count(shard) if known is None else known


def _same_columns(first: Shard, names: dict, shard: Shard, others: dict) -> None:
    missing = [name for name in names if name not in others]
    extra = [name for name in others if name not in names]
    if missing or extra:
        parts = [f"no {listed(missing)}"] if missing else []
        parts += [f"also {listed(extra)}"] if extra else []
        raise InputError(
            "shards whose columns differ",
            shard.path,
            ", ".join(parts),
            f"make it like {first.path}, or move it away",
        )


def _uses(
    where: str,
    columns: list[str],
    targets: Sequence[str],
    drop: Sequence[str],
    weights: str | None,
    groups: str | None,
    ids: Sequence[str],
) -> dict[str, Role]:
    """What the user wants columns for that are no inputs."""
    aside: dict[Role, tuple[str, Sequence[str | None]]] = {
        "target": ("target", targets),
        "dropped": ("drop", drop),
        "id": ("id", ids),
        "groups": ("groups", (groups,)),
        "weights": ("weights", (weights,)),
    }
    uses: dict[str, Role] = {}
    for use, (option, names) in aside.items():
        for name in names:
            if name is None:
                continue
            if name not in columns:
                raise no_such_column(name, columns, option, f"{where} has")
            if name in uses:
                other = aside[uses[name]][0]
                twice = "twice" if uses[name] == use else f"as {other} and as {option}"
                raise InputError(f"a column is named {twice}", option, repr(name), "take one of them out")
            uses[name] = use
    return uses


@dataclass(frozen=True)
class WholeTable:
    """The columns of a table by what they are for.

    Args:
        X: the inputs, float64.
        coding: how they came from the columns.
        columns: what each column is.
        y: the targets, float64; or the class labels as texts, null where a row has none.
        groups: a label for each row, or None.
        weights: a weight for each row, or None; 0 where a missing cell leaves the row out.
        rows: the rows' numbers in the file, from 1.
        kept: whether a row has a weight above 0.
        notes: what was found of how the file is written, in sentences.
        left_out: how many rows a missing cell leaves out.
    """

    X: pl.DataFrame
    coding: Coding
    columns: tuple[Column, ...]
    y: pl.DataFrame
    groups: np.ndarray | None
    weights: np.ndarray | None
    rows: pl.Series
    kept: pl.Series
    notes: tuple[Text, ...] = ()
    left_out: int = 0


def read_whole(
    path: str | Path,
    targets: Sequence[str],
    drop: Sequence[str] = (),
    groups: str | None = None,
    weights: str | None = None,
    reading: Reading | None = None,
    options: ColumnOptions = NOTHING_SAID,
    constants: bool = True,
    on_columns: Callable[[tuple[Column, ...]], None] | None = None,
    labelled: bool = False,
) -> WholeTable:
    """Read a table whole; arguments are those of `open_source`.

    `on_columns` is called before with what each column is.

    Raises:
        InputError: a file that cannot be read, a column that is missing, named twice, without a name or
            wanted for two things, a cell that is no finite number (row and column named), a constant target.
    """
    source = open_source(
        path, targets, drop, weights, torch.float64, groups, reading, options, constants,
        hold=True, labelled=labelled,
    )  # fmt: skip
    if on_columns is not None:
        on_columns(source.columns)
    parts: list[np.ndarray] = []
    beside: list[tuple[Tensor, ...]] = []
    left_out = 0
    for block in source.blocks():
        weight = torch.ones(len(block.y), dtype=torch.float64) if block.weights is None else block.weights
        # Copies: later blocks come in the same memory.
        parts.append(block.X.mT.numpy().copy())
        beside.append((block.y.clone(), weight.clone(), block.rows))
        left_out += block.left_out
    y, weight, numbered = (torch.cat(part) for part in zip(*beside, strict=True))
    X = np.concatenate(parts, axis=1).T  # as frames lie: column after column
    rows = pl.Series("row", numbered.numpy())
    if len(rows) < 2:
        remedy = "a fit needs at least 2"
        raise InputError("too few rows", f"{Path(path).name} has {len(rows)} row", None, remedy)

    def labels_in(name: str | None, what: str) -> pl.Series | None:
        """A column of labels; rows without one are refused, or have no weight from now on."""
        nonlocal left_out
        labels = None if name is None else source.labels(name)
        if labels is None or not labels.null_count():
            return labels
        gone = labels.is_null().to_numpy()
        if options.missing == "refuse":
            place = f"row {rows[int(gone.argmax())]}, column {name!r} of {path}"
            raise InputError(what, place, "empty", source.missing_cells())
        left_out += int((gone & (weight.numpy() > 0)).sum())
        weight[gone] = 0.0
        return labels

    labels = labels_in(groups, "a row without a group")
    if labels is not None:
        labels = labels.fill_null(strategy="forward").fill_null(strategy="backward")
    classes = labels_in(source.classes, "a row without a class")
    kept = pl.Series(weight.numpy() > 0)
    if kept.sum() < 2 and left_out:
        what = "hardly a row is left: the others have missing cells"
        remedy = "drop columns" if labelled else "drop columns, or --missing mean"
        raise InputError(what, str(path), f"{kept.sum()} of {len(rows):,} rows", remedy)
    if kept.sum() < 2:
        what = "fewer than two rows have a weight above 0"
        raise InputError(what, f"column {weights!r} of {path}", kept.sum(), "give more")
    table = pl.DataFrame(y.numpy(), schema=list(targets)) if classes is None else classes.to_frame()
    used = table.filter(kept)
    if all(used[name].n_unique() == 1 for name in targets):
        raise InputError(
            Text("the target is constant", "目标列是常数"),
            f"column {targets[0]!r} in {path}",
            used[0, 0],
            Text("choose another", "请另选一列"),
        )
    return WholeTable(
        pl.DataFrame(X, schema=list(source.inputs), orient="row"),
        source.coding,
        source.columns,
        table,
        None if labels is None else labels.to_numpy(),
        weight.numpy() if weights or left_out else None,
        rows,
        kept,
        source.notes,
        left_out,
    )


def new_rows(
    path: str | Path,
    features: Sequence[str] | Coding,
    ignored: Sequence[str] = (),
    reading: Reading | None = None,
    unseen: str = "refuse",
) -> Iterator[tuple[pl.Series, np.ndarray]]:
    """The columns that a model knows, in its order, in blocks of rows: their numbers in the file, and X.

    Args:
        path: a table as `open_source` takes it, of any length, and no folder.
        features: the model's columns, or its coding of them.
        ignored: columns that may be there and are not wanted.
        reading: how a file of text is written, where it is not to be found out.
        unseen: take levels that the model does not know as the most frequent one ("base"), or refuse them.

    Raises:
        InputError: a file that cannot be read, a column that is missing, unknown or there twice, a cell that
            is no finite number (row and column named).
    """
    if Path(path).is_dir():
        raise InputError("a folder is not predicted", "data", str(path), "give its files one by one")
    (shard,) = files_of(path, reading)
    names = list(column_types(shard))
    coding = features if isinstance(features, Coding) else plain_coding(features)
    spare = {*ignored, *coding.left_out, *without_name(names)} - set(coding.names)
    check_names([name for name in names if name not in spare], coding.names, shard.path)
    source = Source((shard,), coding, (), None, torch.float64, None, missing=None, unseen=unseen)
    for block in source.blocks():
        yield pl.Series("row", block.rows.numpy()), block.X.numpy()


def without_name(names: Sequence[str]) -> Sequence[str]:
    """A first column without a name, which is an index; nothing where there is none."""
    return names[:1] if names[:1] and names[0] in ("", INDEX) else ()


def row_names(
    path: str | Path, columns: Sequence[str], taken: Sequence[str], reading: Reading | None = None
) -> pl.DataFrame:
    """Columns that name the rows of a file, as they stand there: texts of a CSV, any type of a Parquet file.

    Args:
        path: a table as `open_source` takes it, and no folder.
        columns: the columns' names.
        taken: names that other columns have where these are going to be written.
        reading: how a file of text is written, where it is not to be found out.

    Raises:
        InputError: a file that cannot be read, a column that is missing or has a name that is taken.
    """
    if not columns:
        return pl.DataFrame()
    (shard,) = files_of(path, reading)
    there = list(column_types(shard))
    for name in columns:
        if name not in there:
            raise no_such_column(name, there, "id", f"{path} has")
        if name in taken or columns.count(name) > 1:
            what = "an identifier has the name of another column of the file that is written"
            raise InputError(what, "id", repr(name), "rename it in the table")
    return cells_of(shard, columns)


def of_rows(names: pl.DataFrame, rows: pl.Series) -> dict[str, pl.Series]:
    """What `row_names` has for these rows, numbered from 1, by column."""
    return {column.name: column.gather(rows - 1) for column in names.get_columns()}


def count_rows(path: str | Path, reading: Reading | None = None) -> int:
    """How many rows a table has, or all those of a folder, for a progress bar.

    Raises:
        InputError: it cannot be read.
    """
    return sum(map(row_count, files_of(path, reading)))


def is_large(path: str | Path) -> bool:
    """Whether a table is a folder, or its file, unpacked, is larger than a quarter of the memory left."""
    path = Path(path)
    if path.is_dir():
        return True
    memory = available()
    try:
        packed = 5 if path.suffix.lower() in (".gz", ".zst") else 1
        return memory is not None and packed * path.stat().st_size > memory / 4
    except OSError:
        return False  # that it cannot be read is for who reads it to say


@dataclass(frozen=True)
class Table:
    """The inputs and the target of a table, float64, no cell missing.

    Args:
        X: the inputs, shape (rows, columns).
        y: the target, shape (rows,).
        columns: the inputs' names, in the order of the file.
    """

    X: Float64[Tensor, "n p"]
    y: Float64[Tensor, " n"]
    columns: tuple[str, ...]


def read_table(
    path: str | Path,
    target: str,
    drop: Sequence[str] = (),
    reading: Reading | None = None,
    options: ColumnOptions = NOTHING_SAID,
) -> Table:
    """Read a table from a file: one column is the target, every other one an input unless dropped.

    Args:
        path: the file, by its ending, as `open_source` has it.
        target: the column to predict.
        drop: columns to leave out.
        reading: how a file of text is written, where it is not to be found out.
        options: the options of columns.

    Raises:
        InputError: a file that is missing or cannot be parsed, a column that is missing, named twice or
            without a name, a cell that is no finite number (row and column named), a constant target.
    """
    source = open_source(path, target, drop, dtype=torch.float64, reading=reading, options=options, hold=True)
    # Copies: later blocks come in the same memory.
    parts = [(block.X.clone(), block.y[:, 0].clone()) for block in source.blocks()]
    X, y = (torch.cat(part) for part in zip(*parts, strict=True))
    if len(y) > 1 and bool((y == y[0]).all()):
        raise InputError(
            "the target is constant", f"column {target!r} in {path}", y[0].item(), "choose another"
        )
    return Table(X, y, source.inputs)
