"""What `ridge_path` is given in memory: bad data and options are refused, by name, on one line."""

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import torch

import weightdecay as wd
from weightdecay.ridge import path
from weightdecay.ridge.folds import fold_ids
from weightdecay.tables.source import RowBlock, Source

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")

SHAPES = {"tall": (40, 5), "wide": (12, 30)}
PAIRS = [(np.arange(6), np.arange(6, 9)), (np.arange(8), np.arange(8, 12))]


def table(n=40, p=5, seed=0):
    random = np.random.default_rng(seed)
    X = random.normal(size=(n, p))
    return X, X[:, 0] + random.normal(size=n)


def refused(*given, **options):
    """The message, which is one line."""
    with pytest.raises(wd.InputError) as caught:
        wd.ridge_path(*given, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("cv", [3, "loo", "gcv", PAIRS], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e200])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("standardize", [False, True], ids=["as it is", "standardised"])
def test_the_first_cell_that_is_not_finite_is_named(shape, bad, cv, standardize):
    X, y = table(*SHAPES[shape])
    X[3, 1], X[7, 0] = bad, np.nan
    message = refused(X, y, cv=cv, standardize=standardize)
    assert f"X[3, 1] = {bad}" in message
    frame = pl.DataFrame(X, schema=[f"x{j}" for j in range(X.shape[1])])
    assert "X[3, 'x1']" in refused(frame, y, cv=cv, standardize=standardize)
    X[7, 0] = 0  # one cell of one column
    assert f"X[3, 1] = {bad}" in refused(X, y, cv=cv, standardize=standardize)


@pytest.mark.parametrize("shape", SHAPES)
def test_single_precision_overflows_sooner(shape, monkeypatch):
    X, y = table(*SHAPES[shape])
    X = X.astype(np.float32)
    X[3, 1] = np.inf
    assert "X[3, 1] = inf" in refused(X, y, cv=3)
    assert "X[3, 1] = inf" in refused(X, y, cv="loo", standardize=True)
    if shape == "tall":  # small tables are decomposed, wide ones multiplied, in float64
        monkeypatch.setattr(path, "DIRECT", 0)
        X[3, 1] = 1e30
        assert "beyond 1e15: X[3, 1] = 1" in refused(X, y, cv=3)


def with_column(column):
    frame = pd.DataFrame(table()[0], columns=list("abcde"))
    frame["b"] = column
    return frame


X, y = table()
DATES = np.full((40, 2), np.datetime64("2020-01-01"))

DATA = {
    "text": (np.where(X[3, 1] == X, "x", X.astype(str)), y, "not a number: X[3, 1] = 'x'"),
    "objects": (np.full((40, 2), "x", dtype=object), y, "not a number: X[0, 0] = 'x'"),
    "dates": (DATES, y, "not a number: X[0, 0] = '2020-01-01'"),
    "pandas dates": (
        with_column(np.datetime64("2020-01-01") + np.arange(40)),
        y,
        "a column of dates: X[:, 'b'] = '2020-01-01 00:00:00'; dates='days' takes",
    ),
    "pandas texts": (
        with_column([f"1{'x' * (j == 7)}" for j in range(40)]),
        y,
        "not a number: X[7, 'b'] = '1x'; drop the column, mend the cell, or take the column as a category",
    ),
    "pandas objects": (with_column(pd.Series([1, "x"] * 20)), y, "not a number: X[1, 'b'] = 'x'"),
    "pandas empty": (with_column(pd.array([1, None] * 20)), y, "X[1, 'b'] = nan"),
    "polars text": (
        pl.DataFrame({"a": X[:, 0], "b": ["u", "v"] * 19 + ["u", None]}),
        y,
        "a cell is empty: X[39, 'b'] = empty",
    ),
    "polars empty": (pl.DataFrame({"a": X[:, 0], "b": [1, None] * 20}), y, "X[1, 'b'] = nan"),
    "target of text": (X, ["a"] * 40, "not a number: y[0, 0] = 'a'"),
    "target of text, pandas": (X, pd.Series(["a"] * 40, name="fat"), "not a number: y[0, 'fat'] = 'a'"),
    "target with NaN": (X, np.where(np.arange(40) == 7, np.nan, y), "y[7, 0] = nan"),
    "target too large": (X, np.where(np.arange(40) == 7, 1e200, y), "y[7, 0] = 1e+200"),
    "one axis": (X[:, 0], y, "not a table: X = shape (40,)"),
    "three axes": (X[None], y, "not a table: X = shape (1, 40, 5)"),
    "no column": (X[:, :0], y, "no column is left"),
    "one row": (X[:1], y[:1], "too few rows: X = 1"),
    "another length": (X, y[:7], "not a target for each row: y = shape (7,); X has 40 rows"),
    "three axes of targets": (X, y[:, None, None], "not a target for each row"),
    "constant": (X, np.ones(40), "the target is constant: y = 1.0"),
    "constant, named": (X, pl.DataFrame({"a": y * 0 + 3, "b": y * 0 + 4}), "constant: a = 3.0"),
    "two of a name": (pd.DataFrame(X[:, :2], columns=["a", "a"]), y, "one name: X = 'a'"),
    "complex": (X + 1j, y, "complex values are not supported: X = complex128"),
    "complex tensor": (torch.tensor(X + 1j), y, "complex values are not supported"),
    "complex target": (X, y + 1j, "complex values are not supported: y"),
    "sparse target": (X, scipy.sparse.csr_matrix(y), "sparse values are not supported: y = csr_matrix"),
    "sparse target, a tensor": (X, torch.tensor(y).to_sparse(), "sparse values are not supported: y = "),
    "nothing": (None, y, "nothing is given: X = None"),
    "no target": (X, None, "nothing is given: y = None"),
    "ragged": ([[1.0, 2.0], [3.0]], y, "not numbers: X"),
}


@pytest.mark.parametrize("name", DATA)
def test_data_that_cannot_be_used(name):
    inputs, target, part = DATA[name]
    assert part in refused(inputs, target)


OPTIONS = {
    "cv='x'": ({"cv": "x"}, "no such criterion"),
    "cv=5.0": ({"cv": 5.0}, "not a way to hold rows out"),
    "ragged rows": ({"cv": [([[0], [1, 2]], [3])]}, "training rows are not row numbers"),
    "rows in words": ({"cv": [(["a"], [3])]}, "training rows are not row numbers"),
    "a table of rows": ({"cv": [([[0, 1]], [3])]}, "training rows are not row numbers"),
    "cv=1": ({"cv": 1}, "too few folds"),
    "more folds than rows": ({"cv": 41}, "fewer rows than folds: cv = 41"),
    "folds of another length": ({"cv": np.arange(39) % 3}, "not a fold for each row: cv = 39"),
    "one fold": ({"cv": torch.zeros(40, dtype=torch.int64)}, "too few folds: cv = 1"),
    "negative fold": ({"cv": np.arange(40) % 3 - 1}, "not the number of a fold: cv = -1"),
    "folds and groups": ({"cv": np.arange(40) % 3, "groups": np.arange(40)}, "groups need a splitter"),
    "unit": ({"unit": "lasso"}, "no such convention"),
    "negative λ": ({"lambdas": [1.0, -1.0]}, "not a strength: lambdas = -1"),
    "NaN λ": ({"lambdas": np.nan}, "not a strength"),
    "no λ": ({"lambdas": []}, "not a strength: lambdas = nothing"),
    "λ in words": ({"lambdas": "small"}, "not numbers: lambdas"),
    "negative weight": ({"sample_weight": -np.ones(40)}, "negative or not finite: sample_weight[0]"),
    "weights 0": ({"sample_weight": np.zeros(40)}, "every row has weight 0"),
    "one weight": ({"sample_weight": np.eye(40)[3]}, "too few rows of positive weight"),
    "weights too few": ({"sample_weight": np.ones(3)}, "the wrong number of values: sample_weight"),
    "weights in words": ({"sample_weight": "w"}, "not numbers: sample_weight = text"),
    "negative factor": ({"penalty_factors": -np.ones(5)}, "penalty_factors[0] = -1"),
    "factors 0": ({"penalty_factors": np.zeros(5)}, "nothing is penalised"),
    "factors too few": ({"penalty_factors": np.ones(4)}, "penalty_factors = shape (4,); give 5"),
    "factors by name": ({"penalty_factors": {"a": 0}}, "the columns have no names"),
    "drop": ({"drop": ["a"]}, "only for files: drop"),
    "engine": ({"engine": "dask"}, "only for files: engine"),
    "groups None": ({"groups": ["a", None] * 20}, "a row without a group: groups = None"),
    "groups NaN": ({"groups": [1, 2, np.nan, 4] * 10}, "a row without a group: groups = nan"),
    "groups NaN among texts": ({"groups": ["a", np.nan] * 20}, "a row without a group: groups = nan"),
    "groups of an array": ({"groups": np.array([1, 2, np.nan, 4] * 10)}, "a row without a group"),
    "groups NA": ({"groups": pd.array([1, 2, None, 4] * 10)}, "a row without a group: groups = "),
    "groups NaT": ({"groups": np.array(["2020-01-01", "NaT"] * 20, dtype="datetime64[D]")}, "NaT"),
    "groups of two kinds": ({"groups": ["a", 1, 2, "b"] * 10}, "labels of several kinds: groups = int and"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_cannot_be_used(name):
    options, part = OPTIONS[name]
    assert part in refused(X, y, **options)


WRONG_TYPES = {
    "seed='a'": "not a whole number: seed = 'a'",
    "seed=None": "not a whole number: seed = None",
    "seed=1.5, cv=3": "not a whole number: seed = 1.5",
    "intercept='x'": "no such choice: intercept = 'x'",
    "intercept=None": "no such choice: intercept = None",
    "unit=3": "no such convention",
}


def test_types_that_cannot_be_used():
    """Where annotations are not checked, as in a person's own program."""
    lines = [
        "import numpy as np, weightdecay as wd",
        "X = np.random.default_rng(0).normal(size=(20, 3))",
        *(
            f"try: wd.ridge_path(X, X[:, 0], {option})\nexcept wd.InputError as error: print(error)"
            for option in WRONG_TYPES
        ),
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for found, part in zip(done.stdout.splitlines(), WRONG_TYPES.values(), strict=True):
        assert part in found


class Splitter:
    def __init__(self, given):
        self.given = given

    def split(self, X, y=None, groups=None):
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


def test_splitters_that_give_no_splits():
    assert "the splitter gives no splits: cv = Splitter; it gave None" in refused(X, y, cv=Splitter(None))
    assert "the splitter refuses: cv = Splitter; too few" in refused(X, y, cv=Splitter(ValueError("too few")))


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_fold_for_each_row(shape, kind):
    X, y = table(*SHAPES[shape])
    fold = np.arange(len(y)) % 3
    pairs = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    given, wanted = (wd.ridge_path(X, y, [0.1, 1.0], cv=cv) for cv in (kind(fold * 5), pairs))
    assert torch.equal(given.scores, wanted.scores)
    assert given.cv == "3 given folds"


def test_a_fold_for_each_row_may_be_leave_one_out():
    assert torch.equal(
        wd.ridge_path(X, y, [0.1, 1.0], cv=np.arange(40)).scores,
        wd.ridge_path(X, y, [0.1, 1.0], cv="loo").scores,
    )


def test_pairs_and_groups_may_be_tensors():
    fold, groups = torch.arange(40) % 3, (torch.arange(40) % 7).double().requires_grad_()
    pairs = [(fold != k, (fold == k).nonzero()[:, 0]) for k in range(3)]
    assert wd.ridge_path(X, y, [1.0], cv=pairs).scores == wd.ridge_path(X, y, [1.0], cv=fold).scores
    wanted = wd.ridge_path(X, y, [1.0], cv=3, groups=groups.detach().numpy())
    assert wd.ridge_path(X, y, [1.0], cv=3, groups=groups).scores == wanted.scores


@pytest.mark.gpu
def test_pairs_and_groups_may_be_on_a_gpu():
    fold = torch.arange(40) % 3
    pairs = [((fold != k).cuda(), (fold == k).cuda()) for k in range(3)]
    wanted = wd.ridge_path(X, y, [1.0], cv=fold).scores
    for cv, options in ((pairs, {}), (fold.cuda(), {}), (3, {"groups": fold.cuda()})):
        found = wd.ridge_path(torch.tensor(X).cuda(), torch.tensor(y).cuda(), [1.0], cv=cv, **options)
        np.testing.assert_allclose(found.scores, wanted, rtol=1e-9)


def test_weights_that_leave_one_fold():
    inside = (fold_ids(0, 40, 3, 0) == 0).double()
    assert "all rows of positive weight are in one fold" in refused(X, y, cv=3, sample_weight=inside)
    outside = [(np.arange(20), np.arange(20, 30))]
    assert "rows of positive weight on both sides" in refused(
        X, y, cv=outside, sample_weight=np.arange(40) < 20.0
    )


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("cv", [3, "loo", PAIRS, "gcv", "evidence"], ids=str)
def test_inputs_that_do_not_vary(cv, standardize):
    """The fit is the mean of what is fitted."""
    path = wd.ridge_path(np.full((40, 1), 3.3), y, [0.1, 1.0], cv=cv, standardize=standardize)
    assert path.coef().tolist() == [0.0]
    assert float(path.intercept()) == pytest.approx(y.mean())
    assert path.still == [0]


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("shape", [(2, 1), (3, 1), (3, 2)])
def test_the_smallest_tables(shape, standardize):
    """Training sets of one row: nothing but their mean."""
    X, y = table(*shape)
    path = wd.ridge_path(X, y, [1.0], cv=2, standardize=standardize)
    assert bool(path.scores.isfinite().all())
    if len(y) == 2:
        assert float(path.scores[0]) == pytest.approx((y[0] - y[1]) ** 2)


def test_penalty_factors_by_name():
    factors = {"d": 0.0, "b": 3.0}
    for frame in (pl.DataFrame(X, schema=list("abcde")), pd.DataFrame(X, columns=list("abcde"))):
        by_name = wd.ridge_path(frame, y, [1.0], penalty_factors=factors)
        assert torch.equal(by_name.coef(), wd.ridge_path(X, y, [1.0], penalty_factors=[1, 3, 1, 0, 1]).coef())
        assert "no such column: penalty_factors = 'q'" in refused(frame, y, penalty_factors={"q": 1.0})
    numbered = wd.ridge_path(pd.DataFrame(X), y, [1.0], penalty_factors={3: 0.0, 1: 3.0})
    assert torch.equal(numbered.coef(), by_name.coef())


def test_columns_may_be_named_by_numbers():
    frame = pd.DataFrame(X)
    path = wd.ridge_path(frame, y, [1.0])
    assert path.features == ("0", "1", "2", "3", "4")
    wanted = path.predict(X)
    for order in (frame, frame[[3, 1, 4, 0, 2]]):
        np.testing.assert_allclose(path.predict(order), wanted, rtol=1e-12)


@pytest.mark.parametrize("file", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("others", [0, 3])
def test_single_precision_keeps_a_column_far_from_zero(tmp_path, others, standardize, file):
    """A mean of 3e6 sd in float32: a quarter of an sd is a step of its type, and most of it is there."""
    random = np.random.default_rng(1)
    x = (3e6 + random.normal(size=2000)).astype(np.float32)
    X = np.column_stack([x, random.normal(size=(2000, others)).astype(np.float32)])
    y = x.astype(float) - 3e6 + 0.1 * random.normal(size=2000)
    names = [f"x{j}" for j in range(others + 1)]
    path = tmp_path / "t.parquet"
    pl.DataFrame(X, schema=names).with_columns(y=pl.Series(y)).write_parquet(path)
    given = (path, "y") if file else (X, y)
    found = wd.ridge_path(*given, [1e-3], standardize=standardize)
    assert found.settings["dtype"] == "float32"
    wanted = wd.ridge_path(X.astype(float), y, [1e-3], standardize=standardize)
    np.testing.assert_allclose(found.coef(), wanted.coef(), rtol=1e-4, atol=1e-6)
    assert float(found.coef()[0]) == pytest.approx(1, abs=0.01)
    assert found.still == []
    X[:, 0] = 3e6 + 0.25  # and one that does not vary is still seen
    assert wd.ridge_path(X, y, [1e-3], standardize=standardize).still == [0]


@pytest.mark.parametrize("target", [None, 3, [3]])
def test_targets_of_a_file_are_names(tmp_path, target):
    pl.DataFrame({"a": X[:, 0], "y": y}).write_csv(tmp_path / "t.csv")
    assert "not names of columns: y = " in refused(tmp_path / "t.csv", target)


def test_a_file_in_memory_outlives_its_blocks(tmp_path, monkeypatch):
    """Readers may use a block's memory again: what singular values are taken of is a copy."""
    random = np.random.default_rng(0)
    X = random.normal(size=(2500, 3))
    X[:, 2] = X[:, 0] + 1e-7 * X[:, 2]  # which moments do not resolve
    y = X[:, 0] + random.normal(size=2500)
    path = tmp_path / "t.parquet"
    pl.DataFrame(X, schema=["a", "b", "c"]).with_columns(y=pl.Series(y)).write_parquet(path)
    true = Source.blocks

    def again(self, shards=None):
        old = []
        for block in true(self, shards):
            old.append(RowBlock(block.X.clone(), block.y.clone(), None, block.rows))
            if len(old) > 4:
                forgotten = old.pop(0)
                forgotten.X.fill_(7.0)
                forgotten.y.fill_(7.0)
            yield old[-1]

    monkeypatch.setattr("weightdecay.tables.source.ROWS", 256)
    monkeypatch.setattr(Source, "blocks", again)
    found, wanted = (wd.ridge_path(*given, [1e-9], cv=4) for given in ((path, "y"), (X, y)))
    assert found.route == wanted.route == "2,500 × 3 inputs"  # decomposed themselves
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-9)
