"""Folders that commands write: nothing is replaced silently; identifiers and tables of a fit."""

import contextlib
import os
import signal
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import weightdecay as wd
from weightdecay.cli import app
from weightdecay.cli.folders import new_files
from weightdecay.errors import InputError

pytestmark = pytest.mark.usefixtures("undrawn")
FIT = ("fit", "t.csv", "--target", "y", "--drop", "who")
RUN = ("textbook", "--curve", "none", "--epochs", 1)


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    X = random.normal(size=(30, 3))
    frame = pl.DataFrame(X, schema=["a", "b", "c"]).with_columns(
        y=X @ [1.0, -2.0, 0.5] + random.normal(size=30), who=pl.Series([f"p-{i:03}" for i in range(30)])
    )
    frame.write_csv("t.csv")
    before = signal.getsignal(signal.SIGINT)
    yield frame
    signal.signal(signal.SIGINT, before)


def command(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_fit_with_other_settings_is_kept_unless_forced():
    command(*FIT, "--out", "f")
    before = contents("f")
    command(*FIT, "--out", "f")
    assert contents("f") == before
    for other in (("--choose", "one-se"), ("--lambda", "1,2"), ("--cv", 5), ("--seed", 1)):
        with pytest.raises(InputError, match=r"there is a fit with other settings in the folder.*--force"):
            command(*FIT, *other, "--out", "f")
    assert contents("f") == before
    command(*FIT, "--lambda", "1,2", "--out", "f", "--force")
    assert wd.load("f").lambdas.tolist() == [1.0, 2.0]


def test_files_of_others_are_kept():
    for name, line in (
        ("cv.png", FIT),
        ("curves.svg", RUN),
        ("table.parquet", ("sweep", "s.py", "--strengths", 1)),
    ):
        folder = Path(f"of {name}")
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(InputError, match=f"a file would be replaced.*{name}"):
            command(*line, "--out", folder)
        assert contents(folder) == {name: b"mine"}


def test_a_folder_of_another_command_is_never_mixed():
    command(*FIT, "--out", "f")
    before = contents("f")
    with pytest.raises(InputError, match=r"fit wrote path.json there"):
        command("sweep", "s.py", "--strengths", 1, "--out", "f")
    with pytest.raises(InputError, match=r"fit wrote path.json there"):
        command(*RUN, "--out", "f", "--force")
    assert contents("f") == before
    command(*RUN, "--out", "r")
    with pytest.raises(InputError, match=r"textbook wrote run.json there"):
        command(*FIT, "--out", "r")


def test_files_come_at_once_or_not_at_all():
    with contextlib.suppress(RuntimeError), new_files(Path("a/b"), ("x",)) as folder:
        (folder / "x").write_text("half")
        raise RuntimeError
    assert not Path("a").exists()
    with new_files(Path("a/b"), ("x", "old")) as folder:
        Path("a/b/old").write_text("of the run before")
        (folder / "x").write_text("whole")
        with pytest.raises(InputError, match="another command is writing"), new_files(Path("a/b"), ()):
            pass
    assert contents("a/b") == {"x": b"whole"}
    Path("a/b/.new-killed").mkdir()
    with new_files(Path("a/b"), ("x",)) as folder:
        (folder / "x").write_text("again")
    assert contents("a/b") == {"x": b"again"}


def test_an_interrupted_run_does_not_replace_a_complete_one(monkeypatch):
    from weightdecay.textbook import experiment

    command(*RUN, "--out", "r")
    before = contents("r")
    monkeypatch.setattr(experiment, "_measure", mock.Mock(side_effect=KeyboardInterrupt))
    done = CliRunner().invoke(app, [*map(str, RUN), "--out", "r"])
    assert "the complete run in r is kept" in done.output
    assert contents("r") == before


@pytest.mark.parametrize(
    "line",
    [
        ("fit", "t.csv", "--target", "y", "--standardize", "--no-standardize"),
        ("textbook", "--lambda", "0", "--lambda", "3"),
        ("convert", "3", "--from", "textbook", "--from", "sklearn.Ridge", "--to", "x"),
        ("report", "r", "--out", "a", "--out", "b"),
    ],
)
def test_an_option_is_given_once(line):
    with pytest.raises(InputError, match="an option is given more than once: --"):
        command(*line)


def test_an_option_that_takes_several_does():
    Path("b.py").write_text(
        "import torch\ndef build():\n    m = torch.nn.Linear(2, 2)\n"
        "    return m, torch.optim.AdamW(m.parameters(), lr=1e-3, weight_decay=.1)\n"
    )
    command("audit", "b.py:build", "--ignore", "WD102", "--ignore", "WD303,WD403")


def test_predictions_do_not_replace_another_table():
    command("fit", "t.csv", "--target", "y", "--id", "who", "--out", "f")
    with pytest.raises(InputError, match="a file with other columns would be replaced"):
        command("predict", "f", "t.csv", "--out", "f/out_of_fold.csv")
    command("predict", "f", "t.csv", "--out", "p.csv")
    command("predict", "f", "t.csv", "--out", "p.csv")
    assert pl.read_csv("p.csv").columns == ["row", "who", "y_predicted", "outside"]


def test_a_file_that_is_no_plan_is_not_replaced():
    Path("b.py").write_text(
        "import torch\ndef build():\n    m = torch.nn.Linear(2, 2)\n"
        "    return m, torch.optim.SGD(m.parameters(), lr=1e-3)\n"
    )
    Path("mine.json").write_text("{}")
    with pytest.raises(InputError, match="the file is not a saved audit"):
        command("audit", "b.py:build", "--save", "mine.json")
    command("audit", "b.py:build", "--save", "plan.json")
    command("audit", "b.py:build", "--save", "plan.json")


def test_identifiers(somewhere):
    command("fit", "t.csv", "--target", "y", "--id", "who,a", "--out", "f")
    held = pl.read_csv("f/out_of_fold.csv")
    assert held["who"].equals(somewhere["who"])
    np.testing.assert_array_equal(held["a"], somewhere["a"])
    assert wd.load("f/model.json").features == ("b", "c")
    somewhere.rename({"who": "name"}).drop("y").with_columns(n=pl.int_range(30)).write_parquet("new.parquet")
    command("predict", "f", "new.parquet", "--id", "name,n", "--out", "p.parquet")
    found = pl.read_parquet("p.parquet")
    assert found["name"].equals(somewhere["who"].alias("name"))
    assert found["n"].to_list() == list(range(30))
    for wrong, what in (("nope", "no such column"), ("who,who", "name of another column"), ("y", "named")):
        with pytest.raises(InputError, match=what):
            command("fit", "t.csv", "--target", "y", "--id", wrong, "--out", "g")
    with pytest.raises(InputError, match="rows by number only: id = who"):
        command("fit", "t.csv", "--target", "y", "--id", "who", "--out-of-core", "--out", "g")


def test_coefficients_of_several_targets(somewhere):
    somewhere.with_columns(z=pl.col("a") - pl.col("y")).write_csv("t.csv")
    command("fit", "t.csv", "--target", "y,z", "--drop", "who", "--out", "f")
    path, model = wd.load("f"), wd.load("f/model.json")
    table = pl.read_csv("f/coefficients.csv")
    assert table.columns == ["target", "column", "coefficient", "standard_error", "per_sd"]
    assert table["column"].to_list() == ["(intercept)", "a", "b", "c"] * 2
    for t, name in enumerate(("y", "z")):
        rows = table.filter(pl.col("target") == name)
        np.testing.assert_array_equal(rows["coefficient"], [model.intercept[t], *model.coef[:, t]])
        np.testing.assert_array_equal(rows["per_sd"][1:], model.coef[:, t] * model.scale)
    assert pl.read_csv("f/path.csv").equals(path.frame())


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("sklearn.datasets", "pip install scikit-learn, which line 1 needs"),
        ("transformers", "pip install 'weightdecay"),
        ("torchvision", "pip install torchvision, which line 1 needs"),
        ("my_own_modle", "see line 1: is the name right, and is its package installed"),
    ],
)
def test_a_missing_library_is_named_with_what_to_type(module, said):
    Path("s.py").write_text(f"import {module}\ndef build():\n    pass\n")
    with mock.patch.dict(sys.modules, {module: None, module.partition(".")[0]: None}):
        for line in (("sweep", "s.py", "--strengths", 1), ("audit", "s.py:build")):
            with pytest.raises(InputError) as caught:
                command(*line)
            assert said in str(caught.value)


def test_a_name_that_is_too_long_is_told_of(capfd):
    from weightdecay.cli import run

    with mock.patch.object(sys, "argv", ["weightdecay", "report", "x" * 300]), pytest.raises(SystemExit):
        run()
    err = capfd.readouterr().err
    assert err.startswith("error: a file cannot be used: xxx")
    assert err.endswith("File name too long; check the path\n")
    assert os.listdir() == ["t.csv"]  # noqa: PTH208
