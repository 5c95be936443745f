"""A path as files and pickles: everything but the data comes back."""

import copy
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import weightdecay as wd
from weightdecay.ridge import gram
from weightdecay.ridge import record as record_module
from weightdecay.ridge.table_fit import coefficient_path, held_out

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")


def numbers(n, p, t=0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    y = X[:, :1] + torch.randn(n, max(1, t), generator=generator, dtype=torch.float64)
    return X, y if t else y[:, 0]


def table(n, p, t):
    X, y = (values.numpy() for values in numbers(n, p, t))
    names = [f"x{j}" for j in range(p)]
    return pl.DataFrame(X, schema=names), pl.DataFrame(y, schema=[f"y{k}" for k in range(t)])


PATHS = {
    "wide, folds": lambda: wd.ridge_path(*numbers(30, 50)),
    "wide, one by one": lambda: wd.ridge_path(*numbers(30, 50), cv="loo", standardize=True),
    "wide, named targets": lambda: wd.ridge_path(*table(30, 50, 2), unit="sklearn.Ridge"),
    "tall, folds": lambda: wd.ridge_path(*numbers(200, 6), unit="glmnet"),
    "tall, targets": lambda: wd.ridge_path(*numbers(200, 6, 3), [0, 0.1, 1.0], cv="gcv"),
    "tall, shared": lambda: wd.ridge_path(*numbers(200, 6, 3), shared=True, intercept="none"),
    "tall, one name": lambda: wd.ridge_path(*table(200, 6, 1), cv="evidence"),
    "a free column": lambda: wd.ridge_path(*numbers(30, 50), penalty_factors=torch.arange(50.0)),
    "penalized": lambda: wd.ridge_path(*numbers(200, 6), intercept="penalized"),
    "Lanczos": lambda: wd.ridge_path(*numbers(1250, 1300), np.logspace(-1, 1, 5)),
    "a constant column": lambda: wd.ridge_path(torch.eye(8, 9, dtype=torch.float64), torch.arange(8.0)),
}


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13, equal_nan=True)


def same(found, expected):
    """Equal, tensors to the bit."""
    if isinstance(expected, torch.Tensor):
        return bool(((found == expected) | (found.isnan() & expected.isnan())).all())
    return found == expected


@pytest.mark.parametrize("name", PATHS)
def test_a_path_comes_back_from_its_files(tmp_path, name):
    path = PATHS[name]()
    files = path.save(tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["path.safetensors", "path.parquet", "path.json"]
    again = wd.load(tmp_path / "new" / "folder")
    for field in (
        *("lambdas", "unit", "alphas", "scores", "errors", "fold_scores", "precision", "best", "one_se"),
        *("edge", "flat", "flat_range", "cv", "route", "n", "p", "features", "targets", "doubts", "settings"),
        *("dof", "notes", "still"),
    ):
        assert same(getattr(again, field), getattr(path, field)), field
    assert again.frame().equals(path.frame())
    X = numbers(5, path.p, seed=1)[0]
    for lam in (None, path.one_se, float(path.lambdas[2])):
        close(again.coef(lam), path.coef(lam))
        close(again.intercept(lam), path.intercept(lam))
        close(again.predict(X, lam), path.predict(X, lam))
        model, before = again.model(lam), path.model(lam)
        for field in ("coef", "noise_sd", "mean", "scale"):
            close(getattr(model, field), getattr(before, field))
        assert same(model.dof, before.dof)
    close(coefficient_path(again).coef, coefficient_path(path).coef)


@pytest.mark.parametrize("name", ["wide, folds", "tall, folds", "tall, shared"])
def test_a_loaded_path_is_sure_of_its_choices(tmp_path, name):
    path = PATHS[name]()
    path.save(tmp_path)
    again, X = wd.load(tmp_path), numbers(5, path.p, seed=1)[0]
    for lam in (path.best, path.one_se):
        close(again.standard_errors(lam), path.standard_errors(lam))
        for found, expected in zip(again.model(lam).interval(X), path.model(lam).interval(X), strict=True):
            close(found, expected)
    elsewhere = float(path.lambdas[0])
    with pytest.raises(wd.InputError, match=r"no standard errors at this λ without the data: lam = "):
        again.standard_errors(elsewhere)
    with pytest.raises(wd.InputError, match="no intervals at this λ without the data"):
        again.model(elsewhere).interval(X)


def test_the_reason_for_no_intervals_is_kept(tmp_path, monkeypatch):
    X = numbers(5, 6)[0]
    with monkeypatch.context() as small:
        small.setattr(gram, "LARGEST", 35)
        PATHS["wide, folds"]().save(tmp_path)
    with pytest.raises(wd.InputError, match=r"the covariance is too large.*use fewer columns"):
        wd.load(tmp_path).model().interval(numbers(5, wd.load(tmp_path).p)[0])
    monkeypatch.setattr(record_module, "LARGEST_COVARIANCE", 35)
    PATHS["tall, folds"]().save(tmp_path)
    with pytest.raises(wd.InputError, match=r"6 × 6 numbers are too many .*path\.model"):
        wd.load(tmp_path).model().interval(X)


def test_what_needs_the_data_is_refused_by_name(tmp_path):
    path = PATHS["tall, folds"]()
    path.save(tmp_path)
    again = wd.load(tmp_path)
    between = float(path.lambdas[3] * path.lambdas[4]) ** 0.5
    known = rf"lam = {between:.6g}; there are those of {len(path.lambdas)} λ from .* to .*, `path\.lambdas`"
    with pytest.raises(wd.InputError, match=known):
        again.coef(between)
    typed = float(f"{float(path.lambdas[3]):.12g}")
    close(again.coef(typed), path.coef(float(path.lambdas[3])))
    for refused in (again.out_of_fold, lambda: list(again.out_of_fold_blocks())):
        with pytest.raises(wd.InputError, match="predictions out of fold need the data"):
            refused()
    with pytest.raises(wd.InputError, match="predictions out of fold need the data"):
        held_out(again, numbers(200, 6)[1])


@pytest.mark.parametrize("t", [0, 3])
def test_of_a_large_path_the_choices_are_kept(tmp_path, monkeypatch, t):
    monkeypatch.setattr(record_module, "LARGEST", 500)
    path = wd.ridge_path(*numbers(60, 6, t, seed=2))
    path.save(tmp_path)
    again = wd.load(tmp_path)
    for lam in (None, path.best, path.one_se):
        close(again.coef(lam), path.coef(lam))
        close(again.model(lam).noise_sd, path.model(lam).noise_sd)
    assert again.frame().equals(path.frame())
    with pytest.raises(wd.InputError, match=r"without coefficients at this λ: .*there are those of λ = "):
        again.coef(float(path.lambdas[0]))


@pytest.mark.parametrize("name", ["tall, targets", "penalized"])
def test_a_loaded_path_is_drawn_and_saved_again(tmp_path, name):
    path = PATHS[name]()
    path.save(tmp_path / "a")
    again = wd.load(tmp_path / "a")
    assert wd.plot(again).get_title() == wd.plot(path).get_title()
    again.save(tmp_path / "b")
    for file in (tmp_path / "a").iterdir():
        assert (tmp_path / "b" / file.name).read_bytes() == file.read_bytes()


def test_a_path_of_a_file_comes_back(tmp_path):
    X, y = table(200, 6, 1)
    X.with_columns(y["y0"]).write_csv(tmp_path / "data.csv")
    path = wd.ridge_path(tmp_path / "data.csv", "y0", seed=3)
    path.save(tmp_path / "path")
    again = wd.load(tmp_path / "path")
    assert again.settings == path.settings
    close(again.predict(X), path.predict(X))
    close(pickle.loads(pickle.dumps(path)).out_of_fold(), path.out_of_fold())


@pytest.mark.parametrize("name", PATHS)
def test_pickles_and_copies_have_the_data(name):
    path = PATHS[name]()
    for again in (pickle.loads(pickle.dumps(path)), copy.copy(path), copy.deepcopy(path)):
        assert torch.equal(again.out_of_fold(), path.out_of_fold())
        assert torch.equal(again.coef(), path.coef())


def test_pickles_of_uneven_splits_have_the_data():
    X, y = numbers(60, 6)
    splits = [(torch.arange(20), torch.arange(25, 40)), (torch.arange(30), torch.arange(35, 60))]
    path = wd.ridge_path(X, y, cv=splits)
    again = pickle.loads(pickle.dumps(path))
    close(again.out_of_fold(), path.out_of_fold())


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: shutil.rmtree(f), r"cannot be read.*path\.json"),
        (lambda f: (f / "path.json").unlink(), r"cannot be read.*path\.json"),
        (lambda f: (f / "path.safetensors").unlink(), r"cannot be read.*path\.safetensors"),
        (lambda f: (f / "path.parquet").unlink(), r"cannot be read.*path\.parquet"),
        (lambda f: cut(f / "path.safetensors"), r"cut short.*path\.safetensors"),
        (lambda f: cut(f / "path.parquet"), r"cut short.*path\.parquet"),
        (lambda f: cut(f / "path.json"), "not JSON"),
        (lambda f: (f / "path.json").write_text("[]"), "not a ridge path"),
        (lambda f: (f / "path.json").write_text('{"kind": "ridge model"}'), "not a ridge path"),
        (lambda f: changed(f, version=2), r"another version: .*path\.json = 2"),
        (lambda f: changed(f, solver=...), "a field is missing or wrong"),
        (lambda f: changed(f, sha256=None), "a field is missing or wrong"),
        (lambda f: changed(f, flat_range=[]), "a field is missing or wrong"),
    ],
)
def test_files_that_are_cut_short_or_of_others_are_refused(tmp_path, harm, message):
    PATHS["tall, folds"]().save(tmp_path / "path")
    harm(tmp_path / "path")
    with pytest.raises(wd.InputError, match=message):
        wd.load(tmp_path / "path" / "path.json")


def cut(file):
    file.write_bytes(file.read_bytes()[:-30])


def changed(folder, **values):
    record = json.loads((folder / "path.json").read_text()) | values
    left = {name: value for name, value in record.items() if value is not ...}
    (folder / "path.json").write_text(json.dumps(left))


def test_files_of_two_paths_do_not_pass_for_one(tmp_path):
    PATHS["tall, folds"]().save(tmp_path / "a")
    wd.ridge_path(*numbers(200, 6, seed=1)).save(tmp_path / "b")
    shutil.copy(tmp_path / "a" / "path.parquet", tmp_path / "b")
    with pytest.raises(wd.InputError, match=r"not the file that path\.json was written with"):
        wd.load(tmp_path / "b")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(wd.InputError, match="the output folder cannot be written"):
        PATHS["tall, folds"]().save(tmp_path / "file")


def test_the_record_is_renamed_last(tmp_path, monkeypatch):
    """What is there in between is refused, not taken for a path."""
    renamed, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: renamed.append(to.name) or replace(self, to))
    PATHS["tall, folds"]().save(tmp_path)
    assert renamed == ["path.safetensors", "path.parquet", "path.json"]
