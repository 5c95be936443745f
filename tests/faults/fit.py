"""Faults of `weightdecay fit`, its folders, its pages and its files."""

import contextlib
import csv
import os
import sys
import tempfile
import warnings
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import polars as pl
import torch
from rich.console import Console
from tests.faults.rows import row
from typer.testing import CliRunner

import weightdecay as wd


@contextlib.contextmanager
def somewhere():
    """An empty working folder."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def command(*arguments):
    """What a command says, or the error that it raises; and whether it went well."""
    from weightdecay.cli import app

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"{type(done.exception).__name__}: {done.exception}", False
    return done.output, done.exit_code == 0


def wide(n=38, p=300):
    """Fewer rows than columns and no noise: the least score is at λ → 0."""
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    return X, X @ torch.randn(p, generator=generator, dtype=torch.float64)


def table(name="t.csv", rows=30):
    """Inputs a, b, c, a target y and an identifier."""
    random = np.random.default_rng(0)
    X = random.normal(size=(rows, 3))
    frame = pl.DataFrame(X, schema=["a", "b", "c"]).with_columns(
        y=X @ [1.0, -2.0, 0.5] + random.normal(size=rows), who=pl.Series([f"p-{i:03}" for i in range(rows)])
    )
    frame.write_csv(name)
    return frame


@row("30", "38 × 300, λ → 0: what the path says", "all degrees of freedom are used, and the one-SE λ")
def _():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = wd.ridge_path(*wide(), cv="loo")
    said = " ".join(path.doubts)
    return said, "interpolates" in said and f"{path.one_se:.4g}" in said and "one_se" in said


@row(
    "30", "38 × 300, λ → 0: what fit prints, and predict --interval", "no noise sd; --choose one-se and its λ"
)
def _():
    with somewhere():
        X, y = wide()
        frame = pl.DataFrame(X.numpy(), schema=[f"x{j}" for j in range(X.shape[1])])
        frame.with_columns(y=pl.Series(y.numpy())).write_csv("t.csv")
        said, _ = command("fit", "t.csv", "--target", "y", "--out", "f")
        refused, _ = command("predict", "f", "t.csv", "--interval", 0.9)
    plain = "noise sd" in said.replace("no noise sd", "").replace("for a noise sd", "")
    right = not plain and "--choose one-se), leaves" in said and "--choose one-se" in refused
    return said[-300:] + refused, right


@row("33", "textbook into the folder of a fit", "refused, the page of the fit is there")
def _():
    with somewhere() as folder:
        table()
        command("fit", "t.csv", "--target", "y", "--drop", "who", "--out", "f")
        before = (folder / "f/report.html").read_bytes()
        said, _ = command("textbook", "--epochs", 1, "--curve", "none", "--out", "f")
        kept = (folder / "f/report.html").exists() and (folder / "f/report.html").read_bytes() == before
    return said, kept and "fit wrote" in said


@row("33", "two fits at once into one folder", "another command is writing into the folder")
def _():
    try:
        from weightdecay.cli.folders import new_files
    except ImportError:
        from weightdecay.cli.ridge import _new_files

        def new_files(out, names):
            return _new_files(out)

    with somewhere():
        table()
        with new_files(Path("f"), ()) as first:
            said, well = command("fit", "t.csv", "--target", "y", "--drop", "who", "--out", "f")
            return said, not well and "another command is writing" in said and first.exists()


@row("33", "report on an interrupted textbook", "interrupted; run it again")
def _():
    from weightdecay.textbook.record import Run

    with somewhere():
        run = wd.run_experiment(wd.Experiment(lambdas=(0.0,), versions=("scratch",), epochs=1, curve=()))
        Run(run.experiment, run.results, run.outcomes, complete=False).save("f")
        said, _ = command("report", "f")
    return said, "interrupted" in said and "run it again" in said and "Run(" not in said


@row("33", "--target a --target b", "an option is given more than once")
def _():
    with somewhere():
        table()
        said, well = command("fit", "t.csv", "--target", "a", "--target", "y", "--drop", "who")
    return said, not well and "more than once" in said and "by commas" in said


@row("33", "another textbook run in the default folder, then --settings", "the first one's settings are kept")
def _():
    with somewhere() as folder:
        quick = ("textbook", "--curve", "none", "--epochs", 1)
        command(*quick)
        kept = (folder / "runs/textbook/run.json").read_bytes()
        said, _ = command(*quick, "--lambda", "0,1")
        right = (folder / "runs/textbook/run.json").read_bytes() == kept
        _, well = command("textbook", "--settings", "runs/textbook/run.json")
    return said, right and well and "--force" in said


@row("34", "the page of a fit with --choose one-se", "target, table and the λ that was chosen")
def _():
    with somewhere() as folder:
        table()
        command("fit", "t.csv", "--target", "y", "--drop", "who", "--choose", "one-se", "--out", "f")
        page = (folder / "f/report.html").read_text(encoding="utf-8")
        one_se = wd.load(folder / "f" / "model.json").lam
    right = "target: y; table: t.csv" in page and f"λ = {one_se:.4g}, the strongest" in page
    return "named" if right else "not named", right and "目标：y；表格：t.csv" in page


@row("34", "train and test without colour", "told apart by their marks")
def _():
    from weightdecay.reports import terminal

    looks = [SimpleNamespace(epoch=k, epochs=4, train_loss=1.0, test_loss=2.0) for k in range(1, 5)]
    console = Console(no_color=True, force_terminal=True)
    if not hasattr(terminal, "without_colour"):
        return "both are lines", False
    drawn = terminal.chart(looks, [1.0, 2.0], 30, 6, terminal.without_colour(console)).plain
    return drawn, drawn.count(terminal.TEST_MARK) == 4 and "o" in terminal.legend(console, "").plain


@row("35", "coefficients.csv of a fit", "coefficients and standard errors of the closed form")
def _():
    with somewhere():
        frame = table()
        command("fit", "t.csv", "--target", "y", "--drop", "who", "--out", "f")
        alpha = wd.load("f/model.json").alpha
        with Path("f/coefficients.csv").open(newline="") as file:
            rows = {line["column"]: line for line in csv.DictReader(file)}
    X, y = frame.select("a", "b", "c").to_numpy(), frame["y"].to_numpy()
    Z, sd = (X - X.mean(0)) / X.std(0), X.std(0)
    inverse = np.linalg.inv(Z.T @ Z + alpha * np.eye(3))
    b = inverse @ Z.T @ (y - y.mean())
    hat = Z @ inverse @ Z.T
    sigma = np.sqrt(((y - y.mean() - Z @ b) ** 2).sum() / (len(y) - 1 - np.trace(hat)))
    errors = sigma * np.sqrt(np.diag(inverse @ Z.T @ Z @ inverse)) / sd
    given = np.array([[float(rows[c][k]) for k in ("coefficient", "standard_error")] for c in "abc"])
    off = float(np.abs(given / np.stack([b / sd, errors], 1) - 1).max())
    return f"off by {off:.1g}", off < 1e-9


@row("35", "predictions with --id", "each row's identifier beside its prediction")
def _():
    with somewhere():
        frame = table()
        command("fit", "t.csv", "--target", "y", "--id", "who", "--out", "f")
        frame.drop("y").write_csv("new.csv")
        command("predict", "f", "new.csv", "--out", "p.csv")
        found = pl.read_csv("p.csv")
        held = pl.read_csv("f/out_of_fold.csv")
    right = found.columns[:3] == ["row", "who", "y_predicted"] and found["who"].equals(frame["who"])
    return str(found.columns), right and held["who"].equals(frame["who"])


@row("29b", "a loaded path of one target", "the same bits")
def _():
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(40, 7, generator=generator, dtype=torch.float64)
    path = wd.ridge_path(X, X[:, 0] + torch.randn(40, generator=generator, dtype=torch.float64))
    with tempfile.TemporaryDirectory() as folder:
        path.save(folder)
        back = wd.load(folder)
    off = float((path.predict(X) - back.predict(X)).abs().max())
    return f"off by {off:.1g}", off == 0


@row("32", "a sweep's file without scikit-learn", "pip install scikit-learn")
def _():
    with somewhere(), mock.patch.dict(sys.modules, {"sklearn": None, "sklearn.datasets": None}):
        Path("s.py").write_text("from sklearn.datasets import load_digits\n")
        said, _ = command("sweep", "s.py", "--strengths", 1)
    return said[-200:], "pip install scikit-learn" in said
