"""`weightdecay fit` and `predict` as a person runs them: pipes, a real terminal, signals, full disks."""

import json
import re
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.commands import COMMAND, at_a_terminal, here, in_a_process

import weightdecay as wd

TECATOR = Path("examples/data/tecator.csv").resolve()
FILES = [
    *("coefficients.csv", "coefficients.png", "coefficients.svg", "cv.png", "cv.svg"),
    *("importance.png", "importance.svg", "model.json", "model.safetensors"),
    *(
        "out_of_fold.csv",
        "out_of_fold.parquet",
        "path.csv",
        "path.json",
        "path.parquet",
        "path.safetensors",
        "predicted.png",
        "predicted.svg",
        "report.html",
    ),
]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitted")
    done = in_a_process(
        *("fit", TECATOR, "--target", "fat", "--drop", "water,protein", "--out", "runs/fat"), cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder, done


def table(folder, rows=30, name="t.csv", **more):
    """A small table: inputs a, b, c, target y, a text column and a column of weights."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, 3))
    frame = pl.DataFrame(X, schema=["a", "b", "c"]).with_columns(
        y=X @ [1.0, -2.0, 0.5] + random.normal(size=rows),
        z=X @ [0.0, 1.0, 1.0] + random.normal(size=rows),
        who=pl.Series([f"person {i % 7}" for i in range(rows)]),
        w=pl.Series([float(i % 4) for i in range(rows)]),
    )
    frame = frame.with_columns(**more)
    frame.write_csv(folder / name) if name.endswith(".csv") else frame.write_parquet(folder / name)
    return frame


def test_fit_says_what_it_chose_and_writes_everything(fitted):
    folder, done = fitted
    assert names(folder / "runs/fat") == FILES
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 5 + 11 + 6 + 1
    assert lines[0] == "fat from 100 columns, standardised; 215 rows of tecator.csv"
    assert lines[1].startswith("judged by leave-one-out at ")
    assert re.match(
        r"chosen: λ = \S+ with [\d.]+ degrees of freedom and mean squared error \S+, the least", lines[2]
    )
    assert "within one standard error (--choose one-se)" in lines[3]
    off = r"held out: off by 2\.\d+ \(root mean square\), R² 0\.9\d+; predicting the mean is off by 12\.7; "
    assert re.match(off, lines[4])
    assert lines[5].startswith("matter most (change of the prediction by one sd of the column, 90 % ")
    assert lines[16:18] == ["wrong most, held out:", "  row 43: 48.2 measured, 57.76 predicted"]
    assert lines[-1].startswith("written into runs/fat: ")
    copies = "44 of 215 rows stand in another fold, too, with the same inputs and target, rows 12 and 48"
    assert copies in done.stderr
    record = json.loads((folder / "runs/fat/model.json").read_text())
    assert (record["n"], record["targets"], len(record["features"])) == (215, ["fat"], 100)
    assert record["settings"]["drop"] == ["water", "protein"]
    path = pl.read_parquet(folder / "runs/fat/path.parquet")
    best = path.sort("score").row(0, named=True)
    assert best["lam"] == record["lambda"]
    kept, model = wd.load(folder / "runs/fat"), wd.load(folder / "runs/fat" / "model.json")
    assert kept.frame().equals(path)
    assert (kept.best, kept.n, kept.p, kept.targets) == (record["lambda"], 215, 100, ("fat",))
    np.testing.assert_allclose(kept.coef(), model.coef, rtol=1e-9)
    held = pl.read_parquet(folder / "runs/fat/out_of_fold.parquet")
    assert held.columns == ["row", "target", "measured", "prediction", "fold"]
    np.testing.assert_array_equal(held["measured"], pl.read_csv(TECATOR)["fat"])
    error = held["measured"] - held["prediction"]
    assert (error**2).mean() == pytest.approx(best["score"], rel=1e-6)
    for name in ("cv", "coefficients", "predicted"):
        assert (folder / f"runs/fat/{name}.png").read_bytes().startswith(b"\x89PNG")
    assert "leave-one-out" in (folder / "runs/fat/cv.svg").read_text(encoding="utf-8")


def test_predict_matches_columns_by_name(fitted, tmp_path):
    folder, _ = fitted
    spectra = pl.read_csv(TECATOR).drop("water", "protein", "fat")
    spectra.select(reversed(spectra.columns)).write_csv(tmp_path / "new.csv")
    pl.read_csv(TECATOR).write_parquet(
        tmp_path / "whole.parquet"
    )  # with its targets, which are not looked at
    for data, out in (("new.csv", "p.parquet"), ("whole.parquet", "p.csv")):
        done = here("predict", folder / "runs/fat", data, "--out", out, "--interval", 0.9, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        columns = "row, fat_predicted, fat_low, fat_high, outside"
        assert done.stdout == f"215 rows predicted; written into {out}: {columns}\n"
    one, other = pl.read_parquet(tmp_path / "p.parquet"), pl.read_csv(tmp_path / "p.csv")
    np.testing.assert_allclose(one, other, rtol=1e-9)
    assert one["row"].to_list() == list(range(1, 216))
    fat = pl.read_csv(TECATOR)["fat"]
    assert (one["fat_predicted"] - fat).abs().mean() < 2
    assert 0.85 < ((one["fat_low"] < fat) & (fat < one["fat_high"])).mean() <= 1
    done = in_a_process("predict", folder / "runs/fat", "new.csv", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {
        "rows": 215,
        "columns": ["row", "fat_predicted", "outside"],
        "file": "predictions.csv",
        "outside": 0,
        "outside_of": {},
    }


def test_the_files_are_the_same_each_time_and_replaced_whole(tmp_path):
    table(tmp_path)
    arguments = ("fit", "t.csv", "--target", "y", "--drop", "z,who,w", "--cv", 5, "--seed", 3, "--json")
    first = here(*arguments, "--out", "a", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    values = json.loads(first.stdout)
    assert values["cv"] == "5 folds, shuffled, seed 3"
    assert values["best"] == values["lambda"] <= values["one_se"]
    assert sorted(values["files"]) == [f"a/{name}" for name in FILES]
    before = {name: (tmp_path / "a" / name).read_bytes() for name in FILES}
    assert in_a_process(*arguments, "--out", "a", cwd=tmp_path).returncode == 0
    assert {name: (tmp_path / "a" / name).read_bytes() for name in FILES} == before
    assert names(tmp_path / "a") == FILES
    folds = pl.read_parquet(tmp_path / "a/out_of_fold.parquet")["fold"]
    assert sorted(folds.value_counts()["count"].to_list()) == [6] * 5
    quiet = here(*arguments[:-1], "--out", "a", "--quiet", cwd=tmp_path)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_options_reach_the_fit(tmp_path):
    """Against scikit-learn's own parts, by hand: groups, weights, grid, unit, one target of two, shared."""
    frame = table(tmp_path)
    done = here(
        *("fit", "t.csv", "--target", "y,z", "--groups", "who", "--weights", "w", "--cv", 3, "--out", "a"),
        *("--lambda", "0.1,1,10", "--unit", "sklearn.Ridge", "--no-standardize", "--shared", "--json"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values["lambda"] in (0.1, 1.0, 10.0)
    assert values["unit"] == "sklearn.Ridge"
    held = pl.read_parquet(tmp_path / "a/out_of_fold.parquet")
    kept = frame.with_row_index("row", offset=1).filter(pl.col("w") > 0)
    assert held["row"].to_list() == kept["row"].to_list() * 2
    joined = held.filter(target="y").with_columns(who=kept["who"])
    assert joined.group_by("who").agg(pl.col("fold").n_unique())["fold"].to_list() == [1] * 7
    # One held-out prediction by hand: penalised, weighted least squares on the other folds.
    out = joined["fold"].to_numpy() == 1
    X, y, w = kept.select("a", "b", "c").to_numpy(), kept["y"].to_numpy(), kept["w"].to_numpy()
    w = w / w.mean()
    A = np.column_stack([np.ones(len(X)), X])
    G = A[~out].T @ (w[~out, None] * A[~out]) + values["lambda"] * np.diag([0.0, 1, 1, 1])
    beta = np.linalg.solve(G, A[~out].T @ (w[~out] * y[~out]))
    np.testing.assert_allclose(joined["prediction"].to_numpy()[out], A[out] @ beta, rtol=1e-8)
    new = frame.drop("w").head(3)
    new.write_csv(tmp_path / "new.csv")
    done = here("predict", "a", "new.csv", "--interval", 0.5, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pl.read_csv(tmp_path / "predictions.csv").columns == [
        *("row", "y_predicted", "y_low", "y_high", "z_predicted", "z_low", "z_high", "outside"),
    ]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("cv", ["4", "loo"])
def test_a_folder_of_shards_gives_what_the_table_in_memory_gives(tmp_path, cv):
    """Weights of 0, two targets, a column that is not penalised; rows numbered through the shards."""
    frame = table(tmp_path, rows=60, name="t.parquet").drop("who")
    (tmp_path / "shards").mkdir()
    frame[:25].write_csv(tmp_path / "shards/1.csv")
    frame[25:].write_parquet(tmp_path / "shards/2.parquet")
    options = ("--target", "y,z", "--weights", "w", "--unpenalized", "b", "--cv", cv, "--json")
    found = []
    for data, more in (("t.parquet", ("--drop", "who")), ("shards", ())):
        done = here("fit", data, *options, *more, "--out", f"of_{data}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        held = pl.read_parquet(tmp_path / f"of_{data}/out_of_fold.parquet").sort("target", "row")
        found.append((json.loads(done.stdout), held))
    (whole, held), (sharded, held_too) = found
    for name in ("alpha", "dof", "noise_sd", "rmse", "r2", "best", "one_se"):
        np.testing.assert_allclose(whole[name], sharded[name], rtol=1e-8)
    assert names(tmp_path / "of_shards") == FILES
    assert held.drop("prediction").equals(held_too.drop("prediction"))
    np.testing.assert_allclose(held["prediction"], held_too["prediction"], rtol=1e-8)


def test_rows_in_order_of_time_are_predicted_from_what_came_before(tmp_path):
    table(tmp_path, rows=24)
    done = here(
        *("fit", "t.csv", "--target", "y", "--drop", "z,who,w", "--time", "--out", "a", "--unpenalized", "c"),
        *("--choose", "one-se", "--intercept", "none", "--cv", 3),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "the strongest λ within one standard error" in done.stdout.splitlines()[2]
    held = pl.read_parquet(tmp_path / "a/out_of_fold.parquet")
    assert held["fold"].to_list() == [None] * 6 + [1] * 6 + [2] * 6 + [3] * 6
    assert held["prediction"].is_null().sum() == 6
    assert json.loads((tmp_path / "a/model.json").read_text())["intercept"] == 0


def test_blank_lines_are_no_rows(fitted, tmp_path):
    folder, _ = fitted
    lines = TECATOR.read_text().splitlines()
    (tmp_path / "new.csv").write_text("\n".join([lines[0], lines[1], "", lines[2], ""]) + "\n")
    done = here("predict", folder / "runs/fat", "new.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert pl.read_csv(tmp_path / "predictions.csv")["row"].to_list() == [1, 3]


def test_names_of_columns_are_written_as_in_a_csv(tmp_path):
    """An index without a name, a name with a comma, one with a space before it inside quotation marks."""
    random = np.random.default_rng(1)
    frame = pl.DataFrame(random.normal(size=(30, 4)).round(3), schema=["i", "a, b", " y", "c"])
    (tmp_path / "t.csv").write_text(frame.write_csv(quote_style="always").removeprefix('"i"'))
    options = ("--lambda", "0.1", "--no-standardize", "--quiet")
    fits = [
        ("fit", "t.csv", "--target", "c", "--out", "c"),
        ("fit", "t.csv", "--target", "y", "--drop", ""),
        ("fit", "t.csv", "--target", '" y"', "--drop", ',"a, b"', *options),
        ("predict", "runs/fit", "t.csv", "--out", "p.csv"),
    ]
    nameless, unknown, fit, predict = (here(*line, cwd=tmp_path) for line in fits)
    assert nameless.returncode == 0
    assert nameless.stderr.splitlines()[0].startswith(
        '""    index   the row labels of a frame; left out (0.3'
    )
    refused(unknown, ["--target = 'y'; is ' y' meant?", "t.csv has '', 'a, b', ' y', 'c'"])
    assert (fit.returncode, predict.returncode) == (0, 0), (fit.stderr, predict.stderr)
    x, y = frame["c"].to_numpy(), frame[" y"].to_numpy()
    slope = ((x - x.mean()) @ (y - y.mean())) / (((x - x.mean()) ** 2).sum() + 30 * 0.1)
    found = pl.read_csv(tmp_path / "p.csv")[" y_predicted"].to_numpy()
    np.testing.assert_allclose(found, y.mean() + slope * (x - x.mean()), rtol=1e-12)


@pytest.mark.usefixtures("undrawn")
def test_blank_lines_are_numbered_alike_in_memory_and_in_blocks(tmp_path):
    random = np.random.default_rng(0)
    lines = pl.DataFrame(random.normal(size=(40, 3)), schema=["a", "b", "y"]).write_csv().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([lines[0], "", *lines[1:9], " ", "", *lines[9:], ""]))
    options = ("fit", "t.csv", "--target", "y", "--cv", "5", "--lambda", "0.1,1", "--quiet")
    lines = (*options, "--out", "a"), (*options, "--out-of-core", "--out", "b")
    done = [here(*line, cwd=tmp_path) for line in lines]
    assert [one.returncode for one in done] == [0, 0], done
    held = [pl.read_parquet(tmp_path / folder / "out_of_fold.parquet") for folder in "ab"]
    assert held[0]["row"].to_list() == [*range(2, 10), *range(12, 44)]
    assert held[0].drop("prediction").equals(held[1].drop("prediction"))
    np.testing.assert_allclose(held[0]["prediction"], held[1]["prediction"], rtol=1e-12)  # two routes


def test_a_constant_column_is_said_and_a_flat_curve_warned_about(tmp_path):
    random = np.random.default_rng(5)
    frame = pl.DataFrame(random.normal(size=(40, 3)), schema=["a", "b", "y"]).with_columns(k=pl.lit(2.5))
    frame.write_csv(tmp_path / "t.csv")
    done = here("fit", "t.csv", "--target", "y", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert "left out" in " ".join(values["notes"])
    assert [column["role"] for column in values["columns"]] == ["number", "number", "target", "constant"]
    note = "note: left out: 'k' (the same in every row)\nnote: the curve is flat"
    assert done.stderr.startswith(note)
    assert len(done.stderr.splitlines()) == 2


BAD_TABLES = {
    "nan.csv": "a,y\n1,2\nNaN,3\n4,5\n6,7\n",
    "inf.csv": "a,y\n1,2\n4,inf\n4,5\n6,7\n",
    "empty_cell.csv": "a,b,y\n1,2,3\n4,,6\n7,8,9\n",
    "text.csv": "a,b,y\n1,2,3\n4,five,6\n7,8,9\n",
    "twice.csv": "a,a,y\n1,2,3\n4,5,6\n",
    "constant.csv": "a,y\n1,2\n3,2\n5,2\n",
    "one.csv": "a,y\n1,2\n",
    "none.csv": "a,y\n",
    "colon.csv": "a:y\n1:2\n3:4\n",
    "negative.csv": "a,y,w\n1,2,1\n3,4,-1\n5,1,1\n",
    "zero.csv": "a,y,w\n1,2,0\n3,4,0\n5,1,0\n",
    "good.csv": "a,b,y\n" + "".join(f"{i % 5},{i % 3},{i}\n" for i in range(12)),
}


BAD_FITS = [
    ("nan.csv --target y", ["row 2, column 'a' of nan.csv = 'NaN'"]),
    ("inf.csv --target y", ["row 2, column 'y'", "inf"]),
    ("empty_cell.csv --target y", ["row 2, column 'b'", "empty"]),
    ("text.csv --target y", ["row 2, column 'b'", "'five'"]),
    ("twice.csv --target y", ["two columns have one name", "'a'"]),
    ("constant.csv --target y", ["the target is constant", "'y'"]),
    ("one.csv --target y", ["too few rows"]),
    ("none.csv --target y", ["no rows"]),
    ("colon.csv --target y", ["--target = 'y'", "(--separator)"]),
    ("missing.csv --target y", ["missing.csv"]),
    ("good.xlsx --target y", ["good.xlsx", "give a .csv, .tsv"]),
    ("cut.parquet --target y", ["cut.parquet"]),
    ("negative.csv --target y --weights w", ["a weight is negative", "row 2, column 'w'"]),
    ("zero.csv --target y --weights w", ["'w'", "weight above 0"]),
    ("good.csv --target ,", ["--target = nothing"]),
    ("good.csv --target q", ["--target = 'q'", "good.csv has 'a', 'b', 'y'"]),
    ("good.csv --target y --drop y", ["as target and as drop", "--drop = 'y'"]),
    ("good.csv --target y,y", ["twice", "--target = 'y'"]),
    ("good.csv --target y --drop a,b", ["no column is left"]),
    ("good.csv --target y --groups y", ["--groups = 'y'"]),
    ("good.csv --target y --groups a --cv loo", ["--cv = 'loo'"]),
    ("good.csv --target y --groups a --cv 6", ["--cv = 6", "5 groups"]),
    ("good.csv --target y --groups a --time", ["--groups"]),
    ("good.csv --target y --time --cv 12", ["--cv = 12", "12 rows"]),
    ("good.csv --target y --cv 13", ["fewer rows than folds", "--cv = 13"]),
    ("good.csv --target y --cv 1", ["--cv = '1'"]),
    ("good.csv --target y --cv loocv", ["--cv = 'loocv'"]),
    ("good.csv --target y --lambda -1", ["--lambda = -1"]),
    ("good.csv --target y --lambda many", ["--lambda = 'many'"]),
    ("good.csv --target y --lambda 1:2", ["--lambda = '1:2'"]),
    ("good.csv --target y --unit torch.AdamW", ["--unit", "torch.AdamW"]),
    ("good.csv --target y --unit sklearn", ["--unit = 'sklearn'", "sklearn.Ridge"]),
    ("good.csv --target y --choose both", ["--choose = 'both'"]),
    ("good.csv --target y --intercept no", ["--intercept = 'no'"]),
    ("good.csv --target y --unpenalized q", ["--unpenalized = 'q'"]),
    ("good.csv --target y --seed one", ["--seed", "'one'"]),
    ("good.csv --target y --out good.csv", ["good.csv", "--out"]),
    ("good.csv --target y --no-such-option", ["--no-such-option"]),
    ("good.csv --target y --out-of-core --time", ["--time"]),
    ("good.csv --target y --out-of-core --groups a", ["--groups"]),
    ("nan.csv --target y --out-of-core", ["row 2, column 'a' of nan.csv = 'NaN'"]),
    ("text.csv --target y --out-of-core", ["row 2, column 'b' of text.csv = 'five'"]),
    ("cut.parquet --target y --out-of-core", ["cut.parquet"]),
    ("good.csv --target y --out-of-core --unpenalized q", ["--unpenalized = 'q'"]),
    ("good.csv --target y --out-of-core --cv 13", ["--cv = 13"]),
    ("shards --target y", ["shards whose columns differ", "2.csv"]),
]


def test_bad_input_to_fit_is_one_line_and_nothing_is_written(tmp_path):
    for name, text in BAD_TABLES.items():
        (tmp_path / name).write_text(text)
    pl.read_csv(tmp_path / "good.csv").write_parquet(tmp_path / "cut.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "cut.parquet").read_bytes()[:-50])
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/1.csv").write_text("a,y\n1,2\n3,4\n")
    (tmp_path / "shards/2.csv").write_text("b,y\n1,2\n3,4\n")
    before = names(tmp_path)
    for arguments, parts in BAD_FITS:
        refused(here("fit", *arguments.split(), cwd=tmp_path), parts, arguments)
    assert names(tmp_path) == before
    real = in_a_process("fit", "nan.csv", "--target", "y", cwd=tmp_path)
    refused(real, ["row 2, column 'a' of nan.csv = 'NaN'"])


def refused(done, parts, case=""):
    assert done.returncode == 2, (case, done.stdout, done.stderr)
    assert done.stdout == "", case
    assert len(done.stderr.splitlines()) == 1, (case, done.stderr)
    assert done.stderr.startswith("error: "), (case, done.stderr)
    for part in parts:
        assert part in done.stderr, case


BAD_ROWS = [
    (lambda t: t.drop("x_007"), "", ["a column is missing", "'x_007'"]),
    (lambda t: t.rename({"x_007": "x_7"}), "", ["'x_007'", "called 'x_7'"]),
    (lambda t: t.with_columns(moisture=1), "", ["not known to the model", "'moisture'"]),
    (lambda t: t.with_columns(x_003=pl.lit("?")), "", ["row 1, column 'x_003' of 3/new.csv = '?'"]),
    (lambda t: t.head(0), "", ["no rows"]),
    (lambda t: t, "--interval 90", ["--interval = 90"]),
    (lambda t: t, "--out new.csv", ["would replace the input"]),
    (lambda t: t, "--out new.xlsx", ["--out = 7/new.xlsx", ".csv or .parquet"]),
    (lambda t: t, "--out new.csv/p.csv", ["new.csv", "cannot be written"]),
]


def test_bad_input_to_predict_is_one_line_and_nothing_is_written(fitted, tmp_path):
    model, before = fitted[0] / "runs/fat", {}
    for i, (change, _, _) in enumerate(BAD_ROWS):
        (tmp_path / str(i)).mkdir()
        change(pl.read_csv(TECATOR)).write_csv(tmp_path / str(i) / "new.csv")
        before[i] = (tmp_path / str(i) / "new.csv").read_bytes()
    lines = [
        ("predict", model, f"{i}/new.csv", *arguments.replace("new", f"{i}/new").split())
        for i, (_, arguments, _) in enumerate(BAD_ROWS)
    ]
    for i, line in enumerate(lines):
        refused(here(*line, cwd=tmp_path), BAD_ROWS[i][2], line)
        assert names(tmp_path / str(i)) == ["new.csv"]
        assert (tmp_path / str(i) / "new.csv").read_bytes() == before[i]
    assert names(tmp_path) == sorted(map(str, before))


def test_a_cell_far_down_that_is_no_number_leaves_no_file(fitted, tmp_path):
    """After blocks that were written already: the last row of a table of many blocks."""
    folder, _ = fitted
    lines = TECATOR.read_text().splitlines()
    many = [lines[0], *lines[1:] * 400]
    cells = many[-1].split(",")
    many[-1] = ",".join([cells[0], "oops", *cells[2:]])
    (tmp_path / "new.csv").write_text("\n".join(many) + "\n")
    done = here("predict", folder / "runs/fat", "new.csv", "--out", "p.parquet", cwd=tmp_path)
    refused(done, ["row 86000, column 'x_002'", "'oops'"])
    assert names(tmp_path) == ["new.csv"]


def test_the_table_is_called_as_in_the_help(fitted, tmp_path):
    (tmp_path / "t.ods").write_text("a,b\n1,2\n")
    asked = [("fit", "t.ods", "--target", "a"), ("predict", fitted[0] / "runs/fat", "t.ods")]
    for line in (*asked, (*asked[0], "--out-of-core")):
        refused(here(*line, cwd=tmp_path), ["not a table this program reads: DATA = t.ods"])


def test_a_model_that_is_none_is_refused(fitted, tmp_path):
    good = fitted[0] / "runs/fat"
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/model.json").write_text('{"kind": "textbook"}')
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut/model.json").write_bytes((good / "model.json").read_bytes())
    (tmp_path / "cut/model.safetensors").write_bytes((good / "model.safetensors").read_bytes()[:1000])
    for folder in ("none", "foreign", "cut"):
        refused(here("predict", folder, TECATOR, cwd=tmp_path), [folder])
    assert not (tmp_path / "predictions.csv").exists()


SMALL_FIT = ("fit", "t.csv", "--target", "y", "--drop", "z,who,w", "--out", "a")


def small_files(limit):
    """Files of this process may not grow further: as on a disk that is full."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))


@pytest.fixture(scope="module")
def small_fit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    table(folder)
    assert here(*SMALL_FIT, cwd=folder).returncode == 0
    return folder / "a"


@pytest.mark.parametrize("limit", [2_000, 30_000])
def test_a_disk_that_fills_leaves_what_was_there(small_fit, tmp_path, limit):
    table(tmp_path)
    refused(in_a_process(*SMALL_FIT, cwd=tmp_path, preexec_fn=small_files(limit)), ["cannot be written"])
    assert names(tmp_path) == ["t.csv"]
    shutil.copytree(small_fit, tmp_path / "a")
    before = {name: (tmp_path / "a" / name).read_bytes() for name in FILES}
    done = in_a_process(*SMALL_FIT, "--cv", 5, "--force", cwd=tmp_path, preexec_fn=small_files(limit))
    refused(done, ["cannot be written"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_predictions_on_a_disk_that_fills_are_not_there(fitted, tmp_path, ending):
    done = in_a_process(
        *("predict", fitted[0] / "runs/fat", TECATOR, "--out", f"new/p.{ending}"),
        cwd=tmp_path,
        preexec_fn=small_files(500),
    )
    refused(done, ["cannot be written"])
    assert names(tmp_path) == []


def test_ctrl_c_leaves_nothing_behind(tmp_path):
    random = np.random.default_rng(0)
    frame = pl.DataFrame(random.normal(size=(1500, 1500)).round(3))
    frame.write_parquet(tmp_path / "t.parquet")
    process = subprocess.Popen(
        [*COMMAND, "fit", "t.parquet", "--target", "column_3", "--out", "a/b"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    end = time.monotonic() + 60
    while not [*tmp_path.glob("a/b/.new-*")] and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "error: interrupted\n")
    assert names(tmp_path) == ["t.parquet"]


def test_a_terminal_shows_a_bar_with_a_rate_and_an_end(fitted, tmp_path):
    words = ("predict", fitted[0] / "runs/fat", TECATOR)
    code, out, shown = at_a_terminal(*words, cwd=tmp_path, columns=100)
    assert code == 0
    assert out.startswith("215 rows predicted")
    assert "215 of 215 rows" in shown
    assert "rows/s" in shown
