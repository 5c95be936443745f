"""What each column of a table is, and the numbers it becomes.

`learn` looks at a table once and gives every column a `Column`, its role in words, and a `Coding`: how the
columns become inputs. A coding is plain data, which the model keeps: new rows become numbers by it, too.
A category becomes one input for each of its levels, all of them under the penalty and none the base: the
answer then does not depend on which one that would be. Levels are those of the whole table; one that the
training rows of a fold do not have is a column of zeros there, and its coefficient is 0.
"""

import contextlib
import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from weightdecay.arguments import choice
from weightdecay.errors import InputError
from weightdecay.tables.cells import (
    INDEX,
    MISSING,
    TOO_LARGE,
    Numerals,
    is_plain,
    no_such_column,
    numbers,
    texts,
)
from weightdecay.text import Text

Role = Literal[
    "number", "category", "yes/no", "date", "index", "identifier", "constant",
    "target", "class", "weights", "groups", "dropped", "id",
]  # fmt: skip
TargetKind = Literal["number", "text", "yes/no"]
MISSING_CELLS = ("refuse", "drop", "mean")
UNSEEN = ("refuse", "base")
SAMPLE, SAMPLED = 1000, 1_000_000  # rows that are looked at first, and cells
LEAST_ROWS = 10  # of numbers that rise by one, to be taken for an index
RARE = 5  # rows under which a level is rare
MOST_LEVELS = 1000  # of a category
COUNTED = 1 << 20  # texts of a column that are told apart; with more, each different, it is an identifier
INDICATED = 0.05  # share of missing cells over which they have a column of their own
MARK, TOGETHER = "missing", "(rare)"
WORDS = (("false", "true"), ("no", "yes"), ("n", "y"), ("f", "t"))
BINARY = {word: str(value) for pair in WORDS for value, word in enumerate(pair)} | {"1.0": "1", "0.0": "0"}
DATES = ("iso", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y")
SHORT_YEARS = tuple(
    mark.join(f"%{part}" for part in parts) for mark in "./-" for parts in ("dmy", "mdy", "ymd")
)
DAY = 86_400_000_000  # microseconds
FIGURES = r"\d[\d.,'’\s]*"
SIGNED = (  # with a sign of a currency or of a share, or a time of day
    rf"^[+-]?\s*\p{{Sc}}\s*[+-]?{FIGURES}$|^[+-]?{FIGURES}[\p{{Sc}}%‰]$|^\d{{1,3}}:\d\d(:\d\d(\.\d+)?)?$"
)
WITH_ZEROS, WITH_DECIMALS = r"^\s*0\d+\s*$", r"\d[.,]\d"
WHOLE = r"^([+-]?\d+)\.0+$"  # a whole number as a column of floats has it


@dataclass(frozen=True)
class ColumnOptions:
    """What the user says of the columns; names are those of the table.

    Args:
        category: columns to take as categories.
        number: columns to take as numbers.
        ids: columns that name the rows, and are no inputs.
        dates: "days" makes dates the days since the first one; None refuses them.
        missing: "refuse" missing cells; "drop" their rows; "mean" puts in the mean of the training rows.

    Raises:
        InputError: no such choice; a column that is named for two things.
    """

    category: Sequence[str] = ()
    number: Sequence[str] = ()
    ids: Sequence[str] = ()
    dates: str | None = None
    missing: str = "refuse"

    def __post_init__(self) -> None:
        for name in ("category", "number", "ids"):
            names = getattr(self, name)
            names = (names,) if isinstance(names, str) else tuple(str(name) for name in names or ())
            object.__setattr__(self, name, names)
        if self.dates is not None:
            choice(self.dates, "dates", ("days",))
        choice(self.missing, "missing", MISSING_CELLS)
        twice = next((name for name in self.category if name in self.number), None)
        if twice is not None:
            what = "a column is named as category and as number"
            raise InputError(what, "category", repr(twice), "take it out of one")


NOTHING_SAID = ColumnOptions()


class Column(NamedTuple):
    """What a column is.

    Args:
        name: as the table has it.
        role: number, category, yes/no or date for an input; what else it is for; or why it is left out.
        why: in words.
        values: a few of them.
        missing: how many cells are empty, of the rows that were looked at.
    """

    name: str
    role: Role
    why: Text
    values: str
    missing: int

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self._asdict(), "why": str(self.why)}


@dataclass(frozen=True)
class Input:
    """How one column becomes numbers.

    Args:
        name: the column's.
        role: number, category, yes/no or date.
        levels: of a category, each one an input.
        rare: levels that have one input together.
        base: the most frequent level, for which one that was never seen can be taken.
        form: how dates are written: "iso", or as `strptime` has it.
        first: the first date, in days since 1970.
        fill: what a missing cell becomes, or None.
        indicator: whether missing cells have an input of their own.
    """

    name: str
    role: Role = "number"
    levels: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    base: str | None = None
    form: str | None = None
    first: float = 0.0
    fill: float | None = None
    indicator: bool = False

    @property
    def features(self) -> tuple[str, ...]:
        """The names of its inputs."""
        if self.role != "category":
            return (self.name, f"{self.name}={MARK}") if self.indicator else (self.name,)
        return tuple(f"{self.name}={level}" for level in (*self.levels, *([TOGETHER] if self.rare else [])))


@dataclass(frozen=True)
class Coding:
    """How a table becomes inputs, in the order of its columns.

    Args:
        inputs: the columns that are used.
        aside: columns that are not, and what each one is: an index, an identifier or a constant.
    """

    inputs: tuple[Input, ...]
    aside: tuple[tuple[str, str], ...] = ()

    @property
    def left_out(self) -> tuple[str, ...]:
        """The columns that are no inputs."""
        return tuple(name for name, _ in self.aside)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are used, by their names in the table."""
        return tuple(column.name for column in self.inputs)

    @property
    def features(self) -> tuple[str, ...]:
        """The inputs' names."""
        return tuple(name for column in self.inputs for name in column.features)

    @property
    def numbers(self) -> tuple[str, ...]:
        """The columns that are read as numbers."""
        return tuple(column.name for column in self.inputs if column.role == "number")

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns that are read as texts."""
        return tuple(column.name for column in self.inputs if column.role != "number")

    @property
    def fills(self) -> bool:
        """Whether missing cells become numbers."""
        return any(column.fill is not None for column in self.inputs)

    @property
    def plain(self) -> bool:
        """Whether all columns are numbers as they stand."""
        return not (self.left_out or self.texts or self.fills)

    def spread(self, values: Any) -> Any:
        """Return values of columns, by name or one for each, as values of the inputs made of them.

        Names of inputs are taken, too; other values are returned as they are.
        """
        if isinstance(values, Mapping):
            of_column = {column.name: column.features for column in self.inputs}
            inputs = set(self.features)
            return {
                feature: value
                for name, value in values.items()
                for feature in ([name] if name in inputs else of_column.get(str(name), [name]))
            }
        if len(self.names) != len(self.features) and np.shape(values) == (len(self.names),):
            each = zip(self.inputs, values, strict=True)
            return [value for column, value in each for _ in column.features]
        return values

    def said(self) -> list[Text]:
        """Say which columns became several inputs, and which are left out."""
        lines = []
        several = [
            f"{column.name!r}: {len(column.features):,}"
            for column in self.inputs
            if column.role == "category"
        ]
        if several:
            listed = ", ".join(several[:5]) + (", …" if len(several) > 5 else "")
            lines.append(
                Text(
                    f"categories have an input for each level, all under the penalty ({listed})",
                    f"类别列的每个类别各为一个输入，都受惩罚（{listed}）",
                )
            )
        return lines + self.left_out_said()

    def left_out_said(self) -> list[Text]:
        """Say which columns are left out, in one sentence or none."""
        if not self.aside:
            return []
        some, more = self.aside[:5], ", …" if len(self.aside) > 5 else ""
        en = ", ".join(f"{name!r} ({LEFT_OUT[role]})" for name, role in some)
        zh = "、".join(f"{name!r}（{LEFT_OUT[role].zh}）" for name, role in some)
        return [Text(f"left out: {en}{more}", f"去掉的列：{zh}{more}")]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; of each column what is not as usual."""
        usual = asdict(Input(""))
        columns = [
            {name: value for name, value in asdict(column).items() if name == "name" or value != usual[name]}
            for column in self.inputs
        ]
        return {"inputs": columns, "left_out": dict(self.aside)}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Coding":
        """Read back what `to_dict` gave."""
        lists = ("levels", "rare")
        columns = [
            Input(**{**column, **{name: tuple(column.get(name, ())) for name in lists}})
            for column in values["inputs"]
        ]
        return Coding(tuple(columns), tuple(values["left_out"].items()))

    def coded(
        self,
        X: Float[Tensor, "b k"],
        cells: Sequence[pl.Series],
        place: Callable[[int, str], str],
        missing: bool = False,
        unseen: str = "refuse",
    ) -> tuple[Float[Tensor, "b p"], Bool[np.ndarray, " b"] | None]:
        """Return the inputs of some rows, and which rows have an empty cell in a column of texts.

        Args:
            X: the columns of numbers, NaN where a cell is empty.
            cells: the columns of texts.
            place: row from 0 and column -> where that is.
            missing: let empty cells pass; in a column of numbers they stay NaN where there is no fill.
            unseen: of a level that is not known: refuse it, or take it as the most frequent one.

        Raises:
            InputError: a level that is not known; a cell that is no date, neither yes nor no, or empty.
        """
        if not cells and not self.fills:
            return X, None
        given, by_name = X.mT.numpy(), dict(zip(self.texts, told_apart(cells), strict=True))
        out = np.zeros((len(self.features), len(X)), given.dtype)
        empty = np.zeros(len(X), bool)
        row = k = 0
        for column in self.inputs:
            width = len(column.features)
            into, row = out[row : row + width], row + width
            if column.role == "number":
                values, k = given[k], k + 1
            else:
                places, levels = by_name[column.name]
                absent = np.array([level is None for level in levels], bool)[places]
                if absent.any() and not (missing or self.fills):
                    raise empty_cell(place(int(absent.argmax()), column.name))
                empty |= absent
                if column.role == "category":
                    _levels_into(into, column, places, levels, place, unseen)
                    continue
                values = _values(column, places, levels, place)
            into[0] = values
            if column.fill is not None:
                absent = np.isnan(values)
                into[0, absent] = column.fill
                into[1:] = absent
        return torch.from_numpy(out).mT, empty if empty.any() else None

    def filled(self, missing: Mapping[str, float], means: Mapping[str, float]) -> "Coding":
        """Return the coding that puts means in the place of missing cells.

        Args:
            missing: the share of missing cells of each column that is one number.
            means: their means.
        """
        return replace(
            self,
            inputs=tuple(
                replace(column, fill=means[column.name], indicator=missing[column.name] > INDICATED)
                if column.role != "category"
                else column
                for column in self.inputs
            ),
        )


def plain_coding(names: Sequence[str]) -> Coding:
    """The coding of columns that are all numbers."""
    return Coding(tuple(Input(name) for name in names))


def not_an_input(kind: str, where: str, drop: str) -> InputError:
    """Refuse a column that is neither of numbers nor of texts nor of dates."""
    return InputError(
        f"a column of type {kind} is no input", where, None, f"leave it out ({drop}), or give numbers"
    )


def empty_cell(where: str, remedy: str = "fill it, or leave the row out") -> InputError:
    """Refuse an empty cell in a column of texts."""
    return InputError(Text("a cell is empty", "有单元格为空"), where, Text("empty", "空"), remedy)


def _levels_into(
    into: np.ndarray,
    column: Input,
    places: Int64[np.ndarray, " b"],
    levels: list[str | None],
    place: Callable[[int, str], str],
    unseen: str,
) -> None:
    """A one in the row of each cell's level."""
    rows = {level: row for row, level in enumerate(column.levels)}
    rows |= dict.fromkeys(column.rare, len(column.levels))
    if MARK in rows:  # empty cells are a level by themselves
        levels = [MARK if level is None else level for level in levels]
    unknown = [level is not None and level not in rows for level in levels]
    if any(unknown) and unseen != "base":
        row = int(np.array(unknown)[places].argmax())
        level = str(levels[places[row]])
        close = difflib.get_close_matches(level, list(rows), n=1)
        remedy = f"is {close[0]!r} meant? " if close else ""
        remedy += f"mend it, or take such cells as {column.base!r}, the most frequent level: --unseen base"
        what = "the fit has not seen this level"
        raise InputError(what, place(row, column.name), repr(level), remedy)
    base = rows.get(str(column.base), -1)
    codes = np.array([-1 if level is None else rows.get(level, base) for level in levels], np.int64)[places]
    filled = np.flatnonzero(codes >= 0)
    into[codes[filled], filled] = 1


def _values(
    column: Input,
    places: Int64[np.ndarray, " b"],
    levels: list[str | None],
    place: Callable[[int, str], str],
) -> Float64[np.ndarray, " b"]:
    """Days, or ones and zeros; NaN where a cell is empty."""
    cells = pl.Series(levels, dtype=pl.String)
    remedy = "mend the cell, or drop the column"
    if column.role == "date":
        form = column.form or "iso"
        found, what = _days(cells, form), "a cell is not a date as the others are"
        example = date(2020, 1, 31).strftime("%Y-%m-%d" if form == "iso" else form)
        remedy = f"the fit had dates as {example}; {remedy}"
    else:
        found, what = _binary(cells), "a cell is neither yes nor no"
    wrong = (found.is_null() & cells.is_not_null()).to_numpy()
    if wrong.any():
        row = int(wrong[places].argmax())
        raise InputError(what, place(row, column.name), repr(levels[places[row]]), remedy)
    values = found.to_numpy() - (column.first if column.role == "date" else 0.0)
    return values[places]


def yes_or_no(column: pl.Series, name: str, place: Callable[[int, str], str]) -> Float64[np.ndarray, " b"]:
    """Return texts of yes and no as 1 and 0, NaN where a cell is missing.

    Raises:
        InputError: a cell is neither.
    """
    return _values(Input(name, "yes/no"), *told_apart([column])[0], place)


def told_apart(columns: Sequence[pl.Series]) -> list[tuple[Int64[np.ndarray, " b"], list[str | None]]]:
    """Return of each column its different cells as `plain_texts` has them, and each row's place among them.

    Columns of texts have few different ones: these alone are cleaned and compared.
    """
    if not columns:
        return []
    kind = pl.Categorical(pl.Categories.random())  # one for all columns, so that all are cleaned in one go
    written = pl.DataFrame([_as_written(column).alias(str(k)) for k, column in enumerate(columns)])
    coded = written.select(pl.all().cast(kind))
    different = pl.concat([column.unique() for column in coded.iter_columns()]).unique().drop_nulls()
    codes = coded.select(pl.all().to_physical()).with_columns(pl.all().cast(pl.Int64).fill_null(-1))
    of_code = different.to_physical().to_list()
    plain = dict(zip(of_code, plain_texts(different.cast(pl.String)).to_list(), strict=True))
    found = []
    place_of = np.zeros(max(of_code, default=-1) + 2, np.int64)  # the last one for empty cells
    for column in codes.iter_columns():
        values = column.to_numpy()
        place_of[:] = 0
        place_of[values] = 1
        own = np.flatnonzero(place_of)
        place_of[own] = np.arange(len(own))
        found.append((place_of[values], [plain.get(code) for code in own.tolist()]))
    return found


def _as_written(column: pl.Series) -> pl.Series:
    """Cells as texts; dates with times as those of a file are."""
    if isinstance(column.dtype, pl.Datetime):
        if column.dtype.time_zone is not None:
            column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        column = column.dt.strftime("%Y-%m-%d %H:%M:%S%.f")
    return texts(column)


def plain_texts(column: pl.Series) -> pl.Series:
    """Return the cells of a column as texts, alike from every kind of table; null where one is missing.

    >>> plain_texts(pl.Series([" a", "NA", "3.0", None])).to_list()
    ['a', None, '3', None]
    """
    plain = _as_written(column).str.strip_chars().str.replace(WHOLE, "$1")
    plain = plain.replace({"True": "true", "False": "false"})
    return plain.to_frame().select(pl.when(~pl.first().is_in(["", *MISSING])).then(pl.first())).to_series()


def _binary(cells: pl.Series) -> pl.Series:
    return (
        cells.str.to_lowercase()
        .replace(BINARY)
        .replace_strict({"1": 1.0, "0": 0.0}, default=None, return_dtype=pl.Float64)
    )


def _has_short_years(levels: pl.Series) -> bool:
    """Whether the texts are dates, and some have a year of two digits.

    >>> _has_short_years(pl.Series(["31.12.99", "1.1.2000"])), _has_short_years(pl.Series(["31.12.1999"]))
    (True, False)
    """
    if levels.str.contains(r"\d{4}").all():
        return False
    short = levels.str.replace(r"\b\d\d(\d\d)\b", "$1")
    return any(short.str.to_date(form, strict=False).null_count() == 0 for form in SHORT_YEARS)


def _days(cells: pl.Series, form: str) -> pl.Series:
    """Days since 1970, null where a cell is no date of this form."""
    if form == "iso":
        plain = cells.str.replace(r"^(\d{4}-\d{2}-\d{2})T", "$1 ").str.replace(r"(Z|[+-]00:?00)$", "")
        parts = [
            plain.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False, time_unit="us"),
            plain.str.to_datetime("%Y-%m-%d %H:%M", strict=False, time_unit="us"),
            plain.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("us")),
        ]
        frame = pl.DataFrame([part.alias(str(place)) for place, part in enumerate(parts)])
        stamps = frame.select(pl.coalesce(pl.all())).to_series()
    else:
        whole = cells.set(~cells.str.contains(r"\d{4}"), None)  # a year of two digits is none
        stamps = whole.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    return stamps.dt.epoch("us").cast(pl.Float64) / DAY


# What a column is, from its cells.


class Cells(NamedTuple):
    """Where the cells of a table are.

    Args:
        names: all columns, in order.
        head: names and a number of rows -> the first rows, or some more.
        through: names of numbers and of texts -> these columns, in blocks of rows.
        number: a column of texts -> its numbers, null where a cell is none.
        where: the table, for a message.
        place: a column -> where it is, for a message.
        option: an option and a value -> how the user writes that.
    """

    names: Sequence[str]
    head: Callable[[Sequence[str], int], pl.DataFrame]
    through: Callable[[Sequence[str], Sequence[str]], Iterator[pl.DataFrame]]
    number: Callable[[pl.Series], pl.Series]
    where: str
    place: Callable[[str], str]
    option: Callable[[str, str], str]


@dataclass(frozen=True)
class Learned:
    """What was learned of a table.

    Args:
        columns: every column's role.
        coding: how they become inputs.
        refusals: what forbids it, where something does.
        words: targets of yes and no.
        notes: how the files are written, in sentences.
    """

    columns: tuple[Column, ...]
    coding: Coding
    refusals: tuple[InputError, ...] = ()
    words: tuple[str, ...] = ()
    notes: tuple[Text, ...] = ()

    def or_refused(self) -> "Learned":
        """Raise the first refusal, if there is one."""
        for refusal in self.refusals:
            raise refusal
        return self


@dataclass
class _Seen:
    """What was seen of a column.

    Args:
        numeric: its cells are numbers, but for a few.
        typed: the table itself says that it holds categories, dates, or true and false.
        asked: what the user says it is.
        rows, missing: how many.
        constant: the number that is in all cells so far.
        start: the first number, where they rise by one so far.
        counts: of the texts, where they were read through.
        shown: the first values.
        zeros: texts have zeros before their figures, and are no numbers.
        no_number: a text, where the user says that they are numbers and they are not.
        kind: the column's type, where no column of that type can be used.
    """

    numeric: bool
    typed: bool = False
    asked: str | None = None
    rows: int = 0
    missing: int = 0
    constant: float | None = None
    start: float | None = None
    counts: pl.DataFrame | None = None
    shown: str = ""
    zeros: bool = False
    no_number: str | None = None
    kind: str | None = None


def learn(cells: Cells, uses: Mapping[str, Role], options: ColumnOptions, constants: bool = True) -> Learned:
    """Give every column a role, and the inputs a coding.

    A sample of the first rows tells text from numbers. Columns of text, and those that are constant or rise
    by one in the sample, are then read through.

    Args:
        cells: the table.
        uses: the columns that the user gives a role: target, weights and so on.
        options: the options of columns.
        constants: leave out columns that do not vary.

    Raises:
        InputError: a column that is named and not there, or named for two things.
    """
    asked: dict[str, str] = {}
    for option in ("category", "number"):
        for name in getattr(options, option):
            if name not in cells.names:
                raise no_such_column(name, cells.names, option, f"{cells.where} has")
            if name in uses:
                what = f"a column is named as {uses[name]} and as {option}"
                raise InputError(what, option, repr(name), "take one of them out")
            asked[name] = option
    free = [name for name in cells.names if name not in uses]
    measured = [name for name, use in uses.items() if use in ("target", "weights")]
    rows = max(LEAST_ROWS, min(SAMPLE, SAMPLED // len(cells.names)))
    head = cells.head([*free, *measured], rows).head(rows)
    seen = _sampled(head.select(free), asked, cells.number)
    doubtful = [
        name
        for name, column in seen.items()
        if not column.numeric or column.constant is not None or column.start is not None
    ]
    refusals, words = [], []
    for name in measured:
        refusal, is_yes_no = _measured(head[name], uses[name], cells)
        refusals += [] if refusal is None else [refusal]
        words += [name] if is_yes_no else []
    if doubtful:
        _read_through(cells, seen, doubtful, words)
    judged = {name: _judged(name, seen[name], cells, options) for name in free}
    if not constants:
        for name, (column, _, _) in judged.items():
            if column.role == "constant" and seen[name].numeric:
                why = Text("a number, the same in every row", "数字，每一行都相同")
                judged[name] = (column._replace(role="number", why=why), Input(name), None)
    counting = [
        name
        for name, (column, _, _) in judged.items()
        if column.role == "index" and seen[name].start is not None
    ]
    if counting and all(entry is None and refusal is None for _, entry, refusal in judged.values()):
        why = Text("numbers; they count the rows, and are the only input", "数字；给行编号，但它是唯一的输入")
        judged[counting[0]] = (
            judged[counting[0]][0]._replace(role="number", why=why),
            Input(counting[0]),
            None,
        )
    columns = [
        judged[name][0]
        if name in judged
        else Column(
            name,
            uses[name],
            YES_NO_TARGET if name in words else GIVEN[uses[name]],
            _values_of(head[name]) if name in measured else "",
            0,
        )
        for name in cells.names
    ]
    inputs = [entry for _, entry, _ in judged.values() if entry is not None]
    aside = [
        (name, column.role)
        for name, (column, entry, refusal) in judged.items()
        if entry is None and refusal is None
    ]
    refusals += [refusal for _, _, refusal in judged.values() if refusal is not None]
    if not inputs and not refusals:
        reasons = [f"{name!r}: {column.role}, {column.why}" for name, (column, _, _) in judged.items()][:5]
        remedy = "; ".join(reasons) or "drop fewer columns"
        what = "no column is left as an input"
        if len(cells.names) == len(measured):
            what, remedy = "the table has no column besides the target", "give it a column to predict from"
        refusals.append(InputError(what, cells.where, None, remedy))
    coding = Coding(tuple(inputs), tuple(aside))
    same = _named_twice(coding.features)
    if same is not None and not refusals:
        what = "two inputs have one name"
        refusals.append(InputError(what, cells.where, repr(same), "rename the column of that name"))
    return Learned(tuple(columns), coding, tuple(refusals), tuple(words))


def _measured(column: pl.Series, use: Role, cells: Cells) -> tuple[InputError | None, bool]:
    """What forbids a column of a target or of weights, and whether it says yes and no."""
    filled = plain_texts(column).drop_nulls()
    if is_plain(column.dtype) or filled.is_empty() or _mostly_numbers(filled, None, cells.number):
        return None, False
    if use == "target" and _is_yes_no(filled.unique()):
        return None, True
    what, remedy = "the target is text", "a ridge regression predicts numbers: choose another --target"
    if use == "weights":
        what, remedy = "the weights are text", "a weight is a number, 0 or more: choose another --weights"
    if filled.str.contains(SIGNED).all():
        what, remedy = "numbers with a sign", "take the sign off"
    return InputError(what, cells.place(column.name), repr(filled[0]), remedy), False


def kind_of_target(column: pl.Series, number: Callable[[pl.Series], pl.Series]) -> TargetKind:
    """Tell a target that is a class label, a text or a yes and no, from one of numbers.

    Args:
        column: its first cells.
        number: a column of texts -> its numbers, null where a cell is none.

    >>> kind_of_target(pl.Series(["No", "Yes", "No"]), numbers), kind_of_target(pl.Series(["$5"]), numbers)
    ('yes/no', 'number')
    """
    filled = plain_texts(column).drop_nulls()
    if filled.is_empty() or (is_plain(column.dtype) and column.dtype != pl.Boolean):
        return "number"
    if _is_yes_no(filled.unique()):
        return "yes/no"
    signed = filled.str.contains(SIGNED).all()
    return "number" if signed or _mostly_numbers(filled, None, number) else "text"


def _is_yes_no(levels: pl.Series) -> bool:
    words = set(levels.head(3).str.to_lowercase())
    return len(levels) <= 2 and any(words <= set(pair) for pair in WORDS)


LEFT_OUT = {
    "index": Text("it numbers the rows", "给行编号"),
    "identifier": Text("a text that hardly repeats", "几乎不重复的文本"),
    "constant": Text("the same in every row", "每一行都相同"),
}
GIVEN = {
    "target": Text("to be predicted", "要预测的列"),
    "class": Text("to be predicted: a class", "要预测的类别"),
    "weights": Text("the rows' weights", "各行的权重"),
    "groups": Text("rows of one value are held out together", "同值的行一起留出"),
    "dropped": Text("left out as asked", "按要求去掉"),
    "id": Text("names the rows", "行的名称"),
}
YES_NO_TARGET = Text("to be predicted: yes is 1, no is 0", "要预测的列：是为 1，否为 0")


def _named_twice(names: Sequence[str]) -> str | None:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)


def _values_of(column: pl.Series) -> str:
    """The first three different values, in short."""
    values = [
        _short(value) for value in column.head(100).drop_nulls().unique(maintain_order=True)[:4].to_list()
    ]
    return ", ".join(values[:3]) + (", …" if len(values) > 3 else "")


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value).strip()
    if len(text) > 12 and not re.match(WITH_ZEROS, text):  # a number of many digits
        with contextlib.suppress(ValueError):
            text = f"{float(text):.6g}"
    return text if len(text) <= 24 else f"{text[:23]}…"


def _sampled(
    head: pl.DataFrame, asked: Mapping[str, str], number: Callable[[pl.Series], pl.Series]
) -> dict[str, _Seen]:
    """What the first rows say: numbers or not, and whether they vary or count the rows."""
    seen: dict[str, _Seen] = {}
    # Columns with a number in every cell are looked at side by side, for there may be thousands.
    quick = [
        name
        for name, kind in head.schema.items()
        if (kind == pl.String or is_plain(kind))
        and kind not in (pl.Boolean, pl.Null)
        and asked.get(name) != "category"
    ]
    strings = [name for name in quick if head.schema[name] == pl.String and asked.get(name) is None]
    if strings:
        zeros = head.select(pl.col(strings).str.contains(WITH_ZEROS).any()).row(0)
        padded = {name for name, some in zip(strings, zeros, strict=True) if some}
        quick = [name for name in quick if name not in padded]
    table = head.select(pl.col(quick).cast(pl.Float64, strict=False)) if quick else pl.DataFrame()
    quick = (
        [name for name, absent in zip(quick, table.null_count().row(0), strict=True) if absent == 0]
        if quick
        else []
    )
    if quick and head.height:
        values = table.select(quick).to_numpy()
        with np.errstate(invalid="ignore"):
            same = np.logical_and.reduce(values == values[0]) & (np.abs(values[0]) < TOO_LARGE)
            constant = {*same.nonzero()[0]}
            rising = {*np.flatnonzero((np.diff(values, axis=0) == 1).all(0) & np.isin(values[0], (0, 1)))}
            filled = {*np.flatnonzero(~np.isnan(values).any(axis=0))}
        for place, name in enumerate(quick):
            if place in filled:
                column = _Seen(True, asked=asked.get(name), shown=_values_of(table[name]))
                column.constant = float(values[0, place]) if place in constant else None
                column.start = float(values[0, place]) if place in rising else None
                seen[name] = column
    for name in head.columns:
        if name not in seen:
            seen[name] = _looked(head[name], asked.get(name), number)
    return {name: seen[name] for name in head.columns}


def _looked(column: pl.Series, asked: str | None, number: Callable[[pl.Series], pl.Series]) -> _Seen:
    """What the cells of a column say that are not a number each."""
    kind = column.dtype
    typed = kind in (pl.Boolean, pl.Date, pl.Categorical, pl.Enum) or isinstance(kind, pl.Datetime)
    if not (typed or kind.is_numeric() or kind in (pl.String, pl.Null)):
        return _Seen(True, kind=str(kind))
    plain = plain_texts(column)
    filled = plain.drop_nulls()
    direct = is_plain(kind) and kind not in (pl.Boolean, pl.Null)
    zeros = (
        asked is None
        and kind == pl.String
        and filled.str.contains(WITH_ZEROS).any()
        and not filled.str.contains(WITH_DECIMALS).any()
    )
    no_number = None
    if asked is not None:
        numeric = asked == "number"
        if numeric and kind == pl.String and len(filled) and not _mostly_numbers(filled, None, number):
            no_number = next(iter(filled.filter(number(filled).is_null())), None)
    else:
        numeric = not (typed or zeros) and len(filled) > 0
        numeric = numeric and (direct or _mostly_numbers(filled, None, number))
    missing = len(column) - len(filled) if numeric else 0
    seen = _Seen(numeric, typed, asked, missing=missing, shown=_values_of(filled), zeros=zeros)
    seen.no_number = no_number
    if numeric and missing == 0 and len(filled):  # numbers that polars does not read by itself
        values = (column.cast(pl.Float64) if direct else number(filled)).to_numpy()
        same = abs(values[0]) < TOO_LARGE and (values == values[0]).all()
        seen.constant = float(values[0]) if same else None
        rising = values[0] in (0, 1) and (np.diff(values) == 1).all()
        seen.start = float(values[0]) if rising else None
    return seen


def _mostly_numbers(
    levels: pl.Series, counts: pl.Series | None, number: Callable[[pl.Series], pl.Series]
) -> bool:
    """Whether at least half of the texts are numbers, and the others bad cells; not if all are words."""
    words = levels.str.to_lowercase().is_in(["true", "false"])
    read = number(levels).is_not_null()
    for decimal_comma in (False, True):  # of another mark than they should have
        read |= numbers(levels, numerals=Numerals(decimal_comma)).is_not_null()
    if words.all() or not read.any():
        return False
    weight = pl.Series([1]).new_from_index(0, len(levels)) if counts is None else counts
    return 2 * int(weight.filter(read).sum()) >= int(weight.sum())


def _read_through(
    cells: Cells, seen: Mapping[str, _Seen], names: Sequence[str], words: Sequence[str]
) -> None:
    """Read some columns to their end: counts of texts, and whether numbers do not vary or rise by one."""
    parts: dict[str, list[pl.DataFrame]] = {name: [] for name in names if not seen[name].numeric}
    many: set[str] = set()
    for block in cells.through([name for name in names if seen[name].numeric], [*parts, *words]):
        for name in names:
            column, state = block[name], seen[name]
            if state.numeric:
                values = numbers(column) if is_plain(column.dtype) else cells.number(column)
                values = values.to_numpy()  # NaN where there is none, which equals nothing
                if (values != state.constant).any():
                    state.constant = None
                if (
                    state.start is not None
                    and (values != state.start + state.rows + np.arange(len(values))).any()
                ):
                    state.start = None
            else:
                part = _as_written(column).alias("level").value_counts(name="count")
                part = part.cast({"count": pl.Int64})
                if name in many:  # of which only the empty cells still count
                    part = _plain_counts([part]).filter(pl.col("level").is_null())
                parts[name].append(part)
                if name not in many and sum(part.height for part in parts[name]) > COUNTED:
                    parts[name] = [_plain_counts(parts[name])]
                    if parts[name][0].height > COUNTED:
                        many.add(name)
            state.rows += block.height
    for name, some in parts.items():
        counts = _plain_counts(some)
        seen[name].missing = int(counts.filter(pl.col("level").is_null())["count"].sum())
        counts = counts.drop_nulls("level")
        seen[name].counts = counts.sort("count", "level", descending=[True, False])


def _plain_counts(parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Put counts of texts together, these as `plain_texts` has them; null where a cell is missing."""
    counts = pl.concat(parts).group_by("level").sum()
    return counts.with_columns(plain_texts(counts["level"])).group_by("level").sum()


def _judged(
    name: str, seen: _Seen, cells: Cells, options: ColumnOptions
) -> tuple[Column, Input | None, InputError | None]:
    """A column's role, its input if it has one, and what forbids it if something does."""

    def column(role: Role, why: Text, values: str | None = None) -> Column:
        return Column(name, role, why, seen.shown if values is None else values, seen.missing)

    def left_out(role: Role, why: Text, values: str | None = None):
        return column(role, Text(f"{why}; left out", f"{why.zh}；去掉"), values), None, None

    def refused(role: Role, why: Text, what: str, value: Any, remedy: str, values: str | None = None):
        return column(role, why, values), None, InputError(what, cells.place(name), value, remedy)

    number = (column("number", Text("numbers", "数字")), Input(name), None)
    drop = cells.option("drop", name)
    if seen.asked is None and (name == INDEX or (name == "" and cells.names[0] == "")):
        return left_out("index", Text("the row labels of a frame", "数据框的行标签"))
    if name == "":
        remedy = f"an index? drop it ({drop}), or give it a name"
        return refused("number", Text("no name", "没有列名"), "an input has no name", repr(name), remedy)
    if seen.kind is not None:
        why = Text(f"type {seen.kind}", f"类型 {seen.kind}")
        return column("number", why), None, not_an_input(seen.kind, cells.place(name), drop)
    if seen.no_number is not None:
        remedy = f"take it out of the numbers, or leave it out: {drop}"
        why = Text("as asked, but texts", "按要求，但它是文本")
        return refused("number", why, "texts are named as numbers", repr(seen.no_number), remedy)
    if seen.numeric:
        if seen.asked is None and seen.constant is not None and seen.rows > 1:
            return left_out("constant", Text("the same in every row", "每一行都相同"))
        if seen.asked is None and seen.start is not None and seen.rows >= LEAST_ROWS:
            start = f"{seen.start:g}"
            return left_out("index", Text(f"counts the rows from {start}", f"从 {start} 起给行编号"))
        return number
    counts = seen.counts
    if counts is None or counts.height == 0:
        if seen.asked is None:
            return left_out("constant", Text("no cell has a value", "没有一个单元格有值"))
        return refused("category", Text("empty", "空"), "a category without a level", "empty cells", drop)
    levels, filled, count = counts["level"], int(counts["count"].sum()), counts.height
    top = [f"{_short(level)} {rows:,}" for level, rows in counts.head(3).iter_rows()]
    values = ", ".join(top) + (", …" if count > 3 else "")
    text = Text("text: leading zeros;", "文本（有前导零）：") if seen.zeros else Text("text,", "文本，")
    if seen.asked is None:
        if not (seen.typed or seen.zeros) and _mostly_numbers(levels, counts["count"], cells.number):
            return number
        if count == 1 and seen.missing == 0:
            return left_out("constant", Text("the same in every row", "每一行都相同"), values)
        if _is_yes_no(levels):
            return (
                column("yes/no", Text("yes is 1, no is 0", "是为 1，否为 0"), values),
                Input(name, "yes/no"),
                None,
            )
        signed = levels.str.contains(SIGNED)
        if not seen.typed and 2 * int(counts["count"].filter(signed).sum()) >= filled:
            value, as_category = repr(levels.filter(signed)[0]), cells.option("category", name)
            what, why = "numbers with a sign", Text("numbers with a sign", "带符号的数字")
            remedy = f"take the sign off, or {as_category} takes it as a category"
            return refused("number", why, what, value, remedy, values)
        if _has_short_years(levels.head(20)) and _has_short_years(levels):
            what, why = "the year has two digits", Text("years of two digits", "年份只有两位")
            value = repr(levels.filter(~levels.str.contains(r"\d{4}"))[0])
            return refused("date", why, what, value, "write 1999-12-31", values)
        forms = [form for form in DATES if _days(levels.head(20), form).null_count() == 0]
        forms = [form for form in forms if _days(levels, form).null_count() == 0]
        if forms:
            days = _days(levels, forms[0])
            first, last = (str(levels[int(place or 0)]) for place in (days.arg_min(), days.arg_max()))
            values = first if first == last else Text(f"{first} to {last}", f"{first} 至 {last}")
            as_days = cells.option("dates", "days")
            remedy = Text(
                f"{as_days} takes the days since the first one, {drop} leaves it out",
                f"{as_days} 换成距第一个日期的天数，{drop} 略去该列",
            )
            if len(forms) > 1:
                what = "dates of which the day and the month cannot be told apart"
                remedy = f"write them as 2026-03-01, or leave the column out: {drop}"
                return refused(
                    "date",
                    Text("day or month first?", "日在前还是月在前？"),
                    what,
                    repr(first),
                    remedy,
                    values,
                )
            if options.dates is None:
                return refused(
                    "date",
                    Text("dates are no numbers", "日期不是数字"),
                    Text("a column of dates", "日期列"),
                    repr(first),
                    remedy,
                    values,
                )
            entry = Input(name, "date", form=forms[0], first=float(days.min() or 0.0))  # pyright: ignore[reportArgumentType]
            return column("date", Text(f"days since {first}", f"自 {first} 起的天数"), values), entry, None
        if count == filled or count > COUNTED:
            return left_out("identifier", Text(f"{text} another in every row", f"{text.zh}每一行都不同"))
    elif count == filled:
        what = "a category with a level of its own in every row"
        remedy = f"leave it out: {drop}; or take it as a number, if it is one"
        return refused(
            "category", Text("a level in every row", "每一行一个类别"), what, f"{count:,} levels", remedy
        )
    frequent = counts.filter(pl.col("count") >= RARE).height
    rare = sorted(counts["level"][frequent:]) if frequent and count - frequent >= 2 else []
    if not frequent and filled < 2 * count and seen.asked is None:
        why = Text(
            f"{text} {count:,} different ones in {filled:,} rows", f"{text.zh}{filled:,} 行中有 {count:,} 种"
        )
        return left_out("identifier", why)
    kept = sorted(counts["level"][:frequent] if rare else levels)
    if len(kept) > MOST_LEVELS or (seen.asked is not None and count > MOST_LEVELS):
        remedy = f"leave it out ({drop}), or join levels"
        remedy += "; numbers are better left numbers" if numbers(levels).is_not_null().all() else ""
        why, what = Text("too many levels", "类别太多"), f"a category of more than {MOST_LEVELS:,} levels"
        return refused("category", why, what, f"{count:,} levels", remedy)
    marked = seen.missing > 0 and options.missing == "mean" and MARK not in (*kept, *rare)
    en, zh = ("as asked:", "按要求：") if seen.asked is not None else ("text:", "文本：")
    if seen.zeros:
        en, zh = text, text.zh
    why = Text(f"{en} an input for each of {len(kept):,} levels", f"{zh}{len(kept):,} 个类别，每个一个输入")
    if rare:
        some = f"{len(rare):,}"
        why = Text(
            f"{why}, one for {some} that are in fewer than {RARE} rows each",
            f"{why.zh}，另有 {some} 个不足 {RARE} 行的合为一个",
        )
    if marked:
        kept.append(MARK)
        why = Text(f"{why}, one for missing cells", f"{why.zh}，另有一个表示缺失")
    return column("category", why, values), Input(name, "category", (*kept,), (*rare,), str(levels[0])), None
