"""`weightdecay fit` and `predict` of classes, as a person runs them."""

import json
import re

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from tests.commands import here

import weightdecay as wd

pytestmark = pytest.mark.usefixtures("undrawn")
FILES = [
    *("calibration.csv", "coefficients.csv", "coefficients.png", "coefficients.svg", "confusion.csv"),
    *("cv.png", "cv.svg", "importance.png", "importance.svg", "model.json", "model.safetensors"),
    *("out_of_fold.csv", "out_of_fold.parquet", "path.csv", "path.json", "path.parquet", "path.safetensors"),
    *("reliability.png", "reliability.svg", "report.html"),
]
GRID = ("--lambda", "0.003,0.03,0.3")


def table(folder, rows=90, name="t.csv", **more):
    """Inputs a, b and a text, three species that overlap, yes and no, numbers of two and of few values."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, 2))
    score = X[:, 0] + 0.5 * X[:, 1] + random.normal(size=rows)
    frame = pl.DataFrame(X, schema=["a", "b"]).with_columns(
        site=pl.Series([("north", "south", "west")[i % 3] for i in range(rows)]),
        species=pl.Series(np.array(["ant", "bee", "cat"])[np.digitize(score, [-0.5, 0.8])]),
        won=pl.Series(np.where(X[:, 1] + random.normal(size=rows) > 0, "Yes", "No")),
        binary=pl.Series((score > 0).astype(int)),
        stars=pl.Series(np.digitize(score, [-0.5, 0.8]) + 1),
        who=pl.Series([f"case {i}" for i in range(rows)]),
        w=pl.Series([float(i % 4) for i in range(rows)]),
    )
    frame = frame.with_columns(**more)
    frame.write_csv(folder / name) if name.endswith(".csv") else frame.write_parquet(folder / name)
    return frame


def fit(folder, target, *words, data="t.csv", out="out"):
    aside = {"species", "won", "binary", "stars", "who", "w"} - {target, *map(str, words)}
    return here(
        *("fit", data, "--target", target, "--drop", ",".join(sorted(aside)), "--out", out, *words),
        cwd=folder,
    )


def refused(done, *parts):
    """One line, exit code 2."""
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done
    assert lines[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in lines[-1], lines[-1]


def test_a_text_target_is_a_classification_and_everything_is_written(tmp_path):
    frame = table(tmp_path)
    done = fit(tmp_path, "species", "--id", "who", *GRID)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    lines = done.stdout.splitlines()
    assert lines[0] == "a text target: classification"
    assert lines[1] == "species of t.csv from 5 columns, standardised"
    assert lines[2].startswith("90 rows, 5 columns, 3 classes (ant ")
    assert "judged by 5 folds by class, shuffled, seed 0 and log loss at 3 λ from 0.003 to 0.3" in lines[2]
    assert any(line.startswith("the model has λ = ") and "of the least score" in line for line in lines)
    assert lines[-1].startswith("written into out: ")
    path, model = wd.load(tmp_path / "out"), wd.load(tmp_path / "out/model.json")
    assert (path.class_names, path.n, model.lam) == (("ant", "bee", "cat"), 90, path.best)
    held = pl.read_parquet(tmp_path / "out/out_of_fold.parquet")
    chances = ["p_ant", "p_bee", "p_cat"]
    assert held.columns == ["row", "who", "target", "measured", "prediction", *chances, "fold"]
    assert held["measured"].to_list() == frame["species"].to_list()
    assert held["who"].to_list() == frame["who"].to_list()
    P = held.select(chances).to_numpy()
    np.testing.assert_allclose(P.sum(1), 1, rtol=1e-12)
    assert held["prediction"].to_list() == [path.class_names[k] for k in P.argmax(1)]
    # The score is of these very rows, and the tables count them.
    place = path.lambdas.tolist().index(path.best)
    folds = [
        log_loss(part["measured"], part.select(chances).to_numpy(), labels=list(path.class_names))
        for _, part in held.group_by("fold")
    ]
    assert np.mean(folds) == pytest.approx(float(path.scores[place]), rel=0.02)  # folds are of 18 rows each
    right = held.filter(pl.col("measured") == pl.col("prediction"))
    confusion = pl.read_csv(tmp_path / "out/confusion.csv")
    assert confusion.columns == ["class", "predicted ant", "predicted bee", "predicted cat"]
    counts = confusion.drop("class").to_numpy()
    assert (counts.sum(), counts.trace()) == (90, right.height)
    shown = [line.split() for line in lines if re.match(r"  (ant|bee|cat) +\d+ +\d+ +\d+$", line)]
    assert [[int(cell) for cell in row[1:]] for row in shown] == counts.tolist()
    assert pl.read_csv(tmp_path / "out/calibration.csv")["rows"].sum() == 90
    own = held.select(
        pl.concat_list(pl.when(pl.col("measured") == name).then(f"p_{name}") for name in path.class_names)
        .list.max()
        .alias("own")
    )["own"]
    worst = int(own.arg_min()) + 1
    assert any(line.startswith(f"  row {worst} (who case {worst - 1}): ") for line in lines)


def test_the_numbers_are_those_of_scikit_learn(tmp_path):
    """Coefficients, and probabilities of one fold, standardised inside it; weights, some of them 0."""
    frame = table(tmp_path)
    options = ("--weights", "w", "--unit", "sklearn.LogisticRegression", "--lambda", "2.0", "--json")
    drop = ("--drop", "site,won,binary,stars,who")
    done = here(
        *("fit", "t.csv", "--target", "species", *drop, *options, "--cv", 3, "--out", "out"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["task"], values["judge"], values["lambda"]) == ("classification", "log_loss", 2.0)
    held = pl.read_parquet(tmp_path / "out/out_of_fold.parquet")
    kept = frame.filter(pl.col("w") > 0)
    assert held["measured"].to_list() == kept["species"].to_list()
    X, y, w = kept.select("a", "b").to_numpy(), kept["species"].to_numpy(), kept["w"].to_numpy()
    w = w / w.mean()

    def by_sklearn(rows):
        mean = np.average(X[rows], axis=0, weights=w[rows])
        sd = np.sqrt(np.average((X[rows] - mean) ** 2, axis=0, weights=w[rows]))
        model = LogisticRegression(C=2.0, tol=1e-10, max_iter=10_000)
        return model.fit((X[rows] - mean) / sd, y[rows], w[rows]), mean, sd

    train = held["fold"].to_numpy() != 1
    model, mean, sd = by_sklearn(train)
    expected = model.predict_proba((X[~train] - mean) / sd)
    found = held.filter(fold=1).select("p_ant", "p_bee", "p_cat").to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    model, _, sd = by_sklearn(np.full(len(X), True))
    np.testing.assert_allclose(wd.load(tmp_path / "out/model.json").coef, model.coef_ / sd, atol=1e-6)


def test_yes_and_no_are_classes_and_task_overrules(tmp_path):
    table(tmp_path)
    done = fit(tmp_path, "won", *GRID)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("a target of yes and no: classification (--task regression predicts it as ")
    assert wd.load(tmp_path / "out").class_names == ("No", "Yes")
    done = fit(tmp_path, "won", *GRID, "--task", "regression", out="numbers")
    assert done.returncode == 0, done.stderr
    assert wd.load(tmp_path / "numbers").targets == ("won",)
    frame = table(tmp_path, name="t.parquet").with_columns(won=pl.col("won") == "Yes")
    frame.write_parquet(tmp_path / "t.parquet")
    done = fit(tmp_path, "won", *GRID, data="t.parquet", out="booleans")
    assert done.returncode == 0, done.stderr
    found = wd.load(tmp_path / "booleans")
    assert found.class_names == ("false", "true")
    np.testing.assert_array_equal(found.coef(), wd.load(tmp_path / "out").coef())


def test_few_whole_numbers_stay_a_regression_unless_asked(tmp_path):
    table(tmp_path)
    done = fit(tmp_path, "stars", *GRID)
    assert done.returncode == 0, done.stderr
    assert isinstance(wd.load(tmp_path / "out"), wd.RidgePath)
    done = fit(tmp_path, "stars", *GRID, "--task", "classification", "--force")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("as asked: classification\n")
    path = wd.load(tmp_path / "out")
    assert path.classes == (1, 2, 3)
    assert (
        sorted(one.name for one in (tmp_path / "out").iterdir()) == FILES
    )  # nothing of the ridge fit is left
    held = pl.read_parquet(tmp_path / "out/out_of_fold.parquet")
    assert (held["measured"].dtype, held.columns[4:7]) == (pl.Int64, ["p_1", "p_2", "p_3"])
    refused(
        fit(tmp_path, "a", "--task", "classification", out="x"), "numbers of many values", "leave out --task"
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("judge", ["log_loss", "error", "brier", "auc"])
@pytest.mark.parametrize("cv", ["loo", "4"])
def test_every_judge(tmp_path, judge, cv):
    table(tmp_path)
    done = fit(tmp_path, "won", *GRID, "--judge", judge, "--cv", cv, "--choose", "one-se", "--json")
    assert done.returncode == 0, done.stderr
    values, path = json.loads(done.stdout), wd.load(tmp_path / "out")
    assert values["judge"] == path.judge == judge
    assert values["lambda"] == values["one_se"] == path.one_se
    place = path.lambdas.tolist().index(path.one_se)
    column = "error_rate" if judge == "error" else judge
    score = float(path.scores[place])
    assert values[column] == pytest.approx(1 - score if judge == "auc" else score)
    folds = pl.read_parquet(tmp_path / "out/out_of_fold.parquet")["fold"]
    assert folds.n_unique() == (1 if cv == "loo" else 4)


def test_the_evidence_holds_nothing_out(tmp_path):
    table(tmp_path)
    done = fit(tmp_path, "won", *GRID, "--cv", "evidence", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["judge"], values["confusion"], values["worst"]) == ("evidence", None, None)
    there = {path.name for path in (tmp_path / "out").iterdir()}
    aside = {"confusion.csv", "calibration.csv", "reliability.svg", "reliability.png"}
    assert there == set(FILES) - aside - {"out_of_fold.csv", "out_of_fold.parquet"}
    assert here("report", "out", cwd=tmp_path).returncode == 0


def test_groups_time_and_missing_cells(tmp_path):
    table(tmp_path)
    done = fit(tmp_path, "species", "--groups", "site", "--cv", 3, *GRID)
    assert done.returncode == 0, done.stderr
    held = pl.read_parquet(tmp_path / "out/out_of_fold.parquet")
    sites = pl.read_csv(tmp_path / "t.csv")["site"]
    assert (
        held.with_columns(site=sites).group_by("site").agg(pl.col("fold").n_unique())["fold"].to_list()
        == [1] * 3
    )
    done = fit(tmp_path, "species", "--time", "--cv", 2, *GRID, out="time")
    assert done.returncode == 0, done.stderr
    held = pl.read_parquet(tmp_path / "time/out_of_fold.parquet")
    assert held["fold"].to_list() == [None] * 30 + [1] * 30 + [2] * 30
    assert held["prediction"].null_count() == held["p_ant"].null_count() == 30
    table(
        tmp_path,
        species=pl.when(pl.int_range(90) != 6).then("species"),
        a=pl.when(pl.int_range(90) != 8).then("a"),
    )
    counted = "'a' 1, 'species' 1, in 2 of 90 rows; --missing drop leaves these rows out"
    refused(fit(tmp_path, "species", *GRID, out="x"), "row 9, column 'a' of t.csv", counted)
    done = fit(tmp_path, "species", *GRID, "--missing", "drop", "--force")
    assert done.returncode == 0, done.stderr
    held = pl.read_parquet(tmp_path / "out/out_of_fold.parquet")
    assert held["row"].to_list() == [row for row in range(1, 91) if row not in (7, 9)]
    assert "2 of 90 rows have a missing cell and are left out" in done.stderr
    table(tmp_path, species=pl.when(pl.int_range(90) != 6).then("species"))
    refused(
        fit(tmp_path, "species", out="x"), "a row without a class: row 7, column 'species' of t.csv = empty"
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ("species --judge f1", ["--judge = 'f1'"]),
        ("species --judge auc", ["--judge = 'auc', 3 classes"]),
        ("stars --judge error", ["--judge = 'error'", "--task classification"]),
        ("species --task classify", ["--task = 'classify'"]),
        ("species --task regression", ["the target is text", "'species'"]),
        ("species,won --task classification", ["a classification has one target: --target = species, won"]),
        ("species,won", ["the target is text"]),
        ("species --cv gcv", ["--cv = 'gcv'"]),
        ("species --cv 100", ["fewer rows than folds"]),
        ("species --missing mean", ["--missing = 'mean'"]),
        ("species --intercept penalized", ["--intercept = 'penalized'"]),
        ("species --unit sklearn.Ridge", ["--unit = 'sklearn.Ridge'"]),
        ("species --out-of-core", ["into memory: --out-of-core"]),
        ("species --engine dask", ["into memory: --engine = 'dask'"]),
        ("species --shared", ["--shared"]),
        ("who", ["every row has a class of its own", "'who'|who ="]),
        ("site2", ["no such column: --target = 'site2'", "'site' meant"]),
        ("species --unpenalized q", ["--unpenalized = 'q'"]),
        ("species --id p_ant", ["--id = 'p_ant'"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(tmp_path, words, parts):
    table(tmp_path)
    done = here("fit", "t.csv", "--target", *words.split(), "--out", "x", cwd=tmp_path)
    refused(done)
    for part in parts:
        assert any(one in done.stderr.splitlines()[-1] for one in part.split("|")), done.stderr
    assert not (tmp_path / "x").exists()


def test_rare_classes(tmp_path):
    one = pl.when(pl.int_range(90) == 3).then(pl.lit("dodo")).otherwise("species")
    table(tmp_path, species=one)
    refused(
        fit(tmp_path, "species", out="x"),
        "a class has no row among the training rows of a fold",
        "'dodo', 1 row",
    )
    table(tmp_path, species=pl.lit("ant"))
    refused(fit(tmp_path, "species", out="x"), "the target is constant", "'species'")


def test_predict_gives_a_class_and_a_probability_for_each(tmp_path):
    frame = table(tmp_path)
    assert fit(tmp_path, "species", "--id", "who", *GRID).returncode == 0
    model = wd.load(tmp_path / "out/model.json")
    frame.select(reversed(frame.columns)).write_parquet(tmp_path / "new.parquet")
    done = here("predict", "out", "new.parquet", cwd=tmp_path)
    columns = ["species_predicted", "species_p_ant", "species_p_bee", "species_p_cat"]
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"90 rows predicted; written into predictions.csv: row, who, {', '.join(columns)}, outside\n"
    )
    found = pl.read_csv(tmp_path / "predictions.csv")
    X = frame.select("a", "b", "site")
    assert found["species_predicted"].to_list() == model.predict(X).tolist()
    np.testing.assert_allclose(found.select(columns[1:]), model.predict_proba(X), rtol=1e-12)
    refused(
        here("predict", "out", "new.parquet", "--interval", 0.9, cwd=tmp_path),
        "--interval = 0.9", "a probability for each class",
    )  # fmt: skip
    frame.drop("b").write_csv(tmp_path / "less.csv")
    refused(here("predict", "out", "less.csv", "--out", "p.csv", cwd=tmp_path), "a column is missing", "'b'")
    away = frame.head(2).with_columns(site=pl.lit("east"), a=pl.lit(100.0))
    away.write_csv(tmp_path / "away.csv")
    refused(here("predict", "out", "away.csv", "--out", "p.csv", cwd=tmp_path), "'east'", "--unseen base")
    assert not (tmp_path / "p.csv").exists()
    done = here("predict", "out", "away.csv", "--unseen", "base", "--out", "p.csv", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 rows" in done.stderr
    assert "probabilities do not count that" in done.stderr


def test_the_page_of_the_folder_is_written_again(tmp_path):
    table(tmp_path)
    assert fit(tmp_path, "species", "--id", "who", *GRID).returncode == 0
    first = (tmp_path / "out/report.html").read_bytes()
    done = here("report", "out", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "written: out/report.html\n"), done.stderr
    assert (tmp_path / "out/report.html").read_bytes() == first
    refused(here("report", "out/model.json", cwd=tmp_path), "a model alone has no page")
    held = pl.read_parquet(tmp_path / "out/out_of_fold.parquet")
    held.head(80).write_parquet(tmp_path / "out/out_of_fold.parquet")
    refused(here("report", "out", cwd=tmp_path), "not the rows of path.json", "80 rows")


def test_the_same_fit_may_be_run_again_and_another_needs_force(tmp_path):
    table(tmp_path)
    assert fit(tmp_path, "species", *GRID).returncode == 0
    before = {name: (tmp_path / "out" / name).read_bytes() for name in FILES}
    assert fit(tmp_path, "species", *GRID, "--quiet").stdout == ""
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == before
    refused(fit(tmp_path, "species", *GRID, "--judge", "brier"), "other settings in the folder", "--force")
