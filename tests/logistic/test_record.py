"""A path and its models as files, tables and pickles: everything but the data comes back."""

import json
import pickle
import shutil

import numpy as np
import polars as pl
import pytest
import torch

import weightdecay as wd
from weightdecay.logistic import record as record_module

# Curves that are flat, or fall to an edge of the grid, are no matter here.
pytestmark = pytest.mark.filterwarnings("ignore::weightdecay.WeightDecayWarning")
LAM = [1e-3, 1e-2, 0.1, 1.0]


def rows(C=3, n=90, p=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=generator, dtype=torch.float64)
    W = 2 * torch.randn(p, C, generator=generator, dtype=torch.float64)
    noise = -(-torch.rand(n, C, generator=generator, dtype=torch.float64).log()).log()
    return X, (X @ W + noise).argmax(1)


def frame(C=3):
    X, y = rows(C)
    table = pl.DataFrame(X.numpy(), schema=list("abcde"))
    place = pl.Series([("north", "south", "east")[k % 3] for k in range(90)])
    return table.with_columns(place=place), pl.Series("kind", [f"k{k}" for k in y.tolist()])


PATHS = {
    "two classes": lambda: wd.logistic_path(*rows(2)),
    "three classes": lambda: wd.logistic_path(*rows(3), unit="sklearn.LogisticRegression", cv=3),
    "names": lambda: wd.logistic_path(*frame(), LAM),
    "names, two classes": lambda: wd.logistic_path(*frame(2), LAM, standardize=True),
    "booleans": lambda: wd.logistic_path(rows(2)[0], rows(2)[1] > 0, LAM, judge="auc"),
    "weights": lambda: wd.logistic_path(*rows(3), LAM, sample_weight=torch.arange(1, 91).double()),
    "no intercept": lambda: wd.logistic_path(*rows(3), LAM, intercept="none", class_weight={0: 2.0}),
    "one λ": lambda: wd.logistic_path(*rows(3), [0.1], judge="error"),
    "numbers with a point": lambda: wd.logistic_path(rows(3)[0], rows(3)[1].double(), LAM),
}


def same(found, expected):
    """Equal, tensors to the bit."""
    if isinstance(expected, torch.Tensor):
        return bool(((found == expected) | (found.isnan() & expected.isnan())).all())
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[key], expected[key]) for key in expected)
    return found == expected


def inputs(path):
    if path.coding is not None:
        return frame()[0].head(4).select("place", "e", "d", "c", "b", "a")
    return rows(seed=1)[0][:4]


@pytest.mark.parametrize("name", PATHS)
def test_a_path_comes_back_from_its_files(tmp_path, name):
    path = PATHS[name]()
    files = path.save(tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["path.safetensors", "path.parquet", "path.json"]
    again = wd.load(tmp_path / "new" / "folder")
    for field in (
        *("lambdas", "unit", "alphas", "scores", "errors", "fold_scores", "judge", "gradient", "precision"),
        *("best", "one_se", "edge", "flat", "flat_range", "cv", "classes", "counts", "n", "p", "features"),
        *("target", "doubts", "dof", "notes", "class_names", "separable", "share_wrong", "coding"),
    ):
        assert same(getattr(again, field), getattr(path, field)), field
    for judge, values in path.curves.items():
        torch.testing.assert_close(again.curves[judge], values, rtol=1e-12, atol=1e-15)
    assert [note.zh for note in again.notes] == [note.zh for note in path.notes]
    assert [type(label) for label in again.classes] == [type(label) for label in path.classes]
    assert again.frame().equals(path.frame())
    new = inputs(path)
    for lam in (None, path.one_se, float(path.lambdas[0])):
        assert same(again.coef(lam), path.coef(lam))
        assert same(again.intercept(lam), path.intercept(lam))
        assert same(again.predict_proba(new, lam), path.predict_proba(new, lam))
        np.testing.assert_array_equal(again.predict(new, lam), path.predict(new, lam))
    for lam in (path.best, path.one_se):
        assert same(again.standard_errors(lam), path.standard_errors(lam))
        assert again.coef_frame(lam).equals(path.coef_frame(lam))
        assert again.confusion(lam).equals(path.confusion(lam))
        assert again.calibration(lam).table.equals(path.calibration(lam).table)
        assert again.calibration(lam).error == path.calibration(lam).error
        assert again.dof_at(lam) == path.dof_at(lam)
    again.save(tmp_path / "second")
    first, second = (
        json.loads((tmp_path / folder / "path.json").read_text()) for folder in ("new/folder", "second")
    )
    assert {**first, "sha256": 0} == {**second, "sha256": 0}


def test_a_loaded_path_says_what_needs_the_data(tmp_path):
    path = wd.logistic_path(*rows(3), LAM)
    path.save(tmp_path)
    again = wd.load(tmp_path)
    other = next(lam for lam in LAM if lam not in (path.best, path.one_se))
    for ask, message in (
        (
            lambda: again.coef(0.5),
            "without coefficients at this λ: lam = 0.5; there are those of 4 λ from 0.001",
        ),
        (lambda: again.out_of_fold(), "predictions out of fold need the data"),
        (lambda: again.confusion(other), "another confusion table needs the data"),
        (lambda: again.calibration(bins=3), "another calibration needs the data"),
        (lambda: again.standard_errors(other), "no standard errors at this λ without the data"),
    ):
        with pytest.raises(wd.InputError) as caught:
            ask()
        assert message in str(caught.value)
        assert "fit it again with `logistic_path`" in str(caught.value)
    assert again.coef_frame(other)["standard_error"].null_count() == 18
    assert again.model(other).standard_errors is None


@pytest.mark.parametrize("name", PATHS)
def test_a_model_comes_back_from_its_files(tmp_path, name):
    path = PATHS[name]()
    model = path.model(path.one_se)
    assert [file.name for file in model.save(tmp_path)] == ["model.safetensors", "model.json"]
    again = wd.load(tmp_path)
    for field in (
        *("coef", "intercept", "classes", "features", "target", "lam", "unit", "alpha", "n", "counts", "dof"),
        *("standard_errors", "mean", "scale", "ranges", "settings", "coding"),
    ):
        assert same(getattr(again, field), getattr(model, field)), field
    new = inputs(path)
    assert same(again.predict_proba(new), path.predict_proba(new, path.one_se))
    np.testing.assert_array_equal(again.predict(new), model.predict(new))
    assert type(again.predict(new)[0].item()) is type(path.classes[0])
    np.testing.assert_allclose(again.predict_proba(new).sum(1), 1, rtol=1e-12)
    assert not bool(
        again.outside(rows(3)[0]).any() if path.coding is None else again.outside(frame()[0]).any()
    )


def test_a_folder_has_a_path_and_a_model(tmp_path):
    path = wd.logistic_path(*rows(3), LAM)
    path.save(tmp_path)
    path.model().save(tmp_path)
    assert isinstance(wd.load(tmp_path), wd.LogisticPath)
    assert isinstance(wd.load(tmp_path / "model.json"), record_module.LogisticModel)
    wd.ridge_path(rows(3)[0], rows(3)[0][:, 0] + rows(2)[0][:, 1]).save(tmp_path)  # files of the same name
    assert isinstance(wd.load(tmp_path), wd.RidgePath)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("cut", "cut short, changed, or not the file that path.json was written with"),
        ("missing", "a file cannot be read"),
        ("version", "written by another version: a path of logistic regression"),
        ("field", "a field is missing or wrong"),
    ],
)
def test_files_that_are_harmed_are_refused(tmp_path, harm, message):
    wd.logistic_path(*rows(3), LAM).save(tmp_path)
    if harm == "cut":
        file = tmp_path / "path.parquet"
        file.write_bytes(file.read_bytes()[:-3])
    if harm == "missing":
        (tmp_path / "path.safetensors").unlink()
    if harm in ("version", "field"):
        values = json.loads((tmp_path / "path.json").read_text())
        values["version"] = 1 + (harm == "version")
        if harm == "field":
            del values["classes"]
        (tmp_path / "path.json").write_text(json.dumps(values))
    with pytest.raises(wd.InputError) as caught:
        wd.load(tmp_path)
    assert message in str(caught.value)


def test_nothing_of_the_rows_is_in_the_files(tmp_path):
    """At the size of the files: they do not grow with the rows."""
    sizes = []
    for n in (200, 4000):
        shutil.rmtree(tmp_path / "saved", ignore_errors=True)
        files = wd.logistic_path(*rows(2, n=n), LAM).save(tmp_path / "saved")
        sizes.append(sum(file.stat().st_size for file in files))
    assert abs(sizes[1] - sizes[0]) < 1500


def numeric_errors(X, y, alpha, C, intercept=True):
    """Standard errors and degrees of freedom from autograd's second derivatives of the objective."""
    c = 1 if C == 2 else C
    q = X.shape[1] + intercept
    D = torch.cat([X, torch.ones(len(X), 1, dtype=torch.float64)], 1)[:, :q]

    def loss(v):
        Z = D @ v.reshape(c, q).mT
        if c == 1:
            return torch.nn.functional.binary_cross_entropy_with_logits(Z[:, 0], y.double(), reduction="sum")
        return torch.nn.functional.cross_entropy(Z, y, reduction="sum")

    def errors(v):
        J = torch.autograd.functional.hessian(loss, v)
        f = torch.ones(c, q, dtype=torch.float64)
        f[:, X.shape[1] :] = 0
        inverse = torch.linalg.pinv(J + alpha * torch.diag(f.reshape(-1)), hermitian=True, rtol=1e-10)
        return (inverse @ J @ inverse).diagonal().sqrt().reshape(c, q), float((inverse @ J).trace())

    return errors


@pytest.mark.parametrize("C", [2, 3])
@pytest.mark.parametrize("intercept", ["free", "none"])
def test_standard_errors_and_degrees_of_freedom_are_those_of_the_hessian(C, intercept):
    X, y = rows(C)
    path = wd.logistic_path(X, y, LAM, intercept=intercept)
    lam = 1e-2
    coef, b = path.coef(lam).reshape(-1, 5), path.intercept(lam).reshape(-1, 1)
    whole = torch.cat([coef, b], 1)[:, : 5 + (intercept == "free")]
    errors, dof = numeric_errors(X, y, 90 * lam, C, intercept == "free")(whole.reshape(-1))
    torch.testing.assert_close(path.standard_errors(lam).reshape(-1, 5), errors[:, :5], rtol=1e-6, atol=0)
    assert float(path.dof[1]) == pytest.approx(dof, rel=1e-8)
    assert path.dof_at(lam) == pytest.approx(dof, rel=1e-8)
    table = path.coef_frame(lam)
    assert table.height == len(coef) * 6
    assert table["class"].unique().sort().to_list() == [str(k) for k in range(C)][-len(coef) :]
    slopes = table.filter(pl.col("column") != "(intercept)")
    np.testing.assert_array_equal(slopes["coefficient"], coef.reshape(-1))
    sd = X.std(0, correction=0)
    np.testing.assert_allclose(slopes["per_sd"], (coef * sd).reshape(-1), rtol=1e-12)
    own = table.filter(pl.col("column") == "(intercept)")
    if intercept == "free":
        np.testing.assert_allclose(own["standard_error"], errors[:, 5], rtol=1e-6)
    else:
        assert own["standard_error"].null_count() == len(coef)


def test_standard_errors_are_those_of_drawing_labels_again():
    X, y = rows(2, n=1500)
    path = wd.logistic_path(X, y, [1e-3])
    p, generator = path.predict_proba(X)[:, 1], torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(60):
        labels = (torch.rand(1500, generator=generator, dtype=torch.float64) < p).long()
        drawn.append(wd.logistic_path(X, labels, [1e-3], cv=2).coef())
    torch.testing.assert_close(torch.stack(drawn).std(0), path.standard_errors(), rtol=0.25, atol=0)


def test_degrees_of_freedom_go_from_the_intercepts_to_all():
    path = wd.logistic_path(*rows(3), [1e-7, 1e4])
    assert path.dof[0] == pytest.approx(12, abs=0.01)  # (C − 1)(p + 1)
    assert path.dof[1] == pytest.approx(2, abs=0.01)


def test_too_many_coefficients_have_no_standard_errors(monkeypatch, tmp_path):
    monkeypatch.setattr(record_module, "SIDE", 10)
    monkeypatch.setattr(record_module, "EVERY_SIDE", 10)
    path = wd.logistic_path(*rows(3), LAM)
    with pytest.raises(
        wd.InputError, match="18 coefficients are too many for standard errors, which take 10"
    ):
        path.standard_errors()
    assert path.coef_frame()["standard_error"].null_count() == 18
    assert path.model().standard_errors is None
    assert path.dof_at() is None
    assert "degrees of freedom" not in " ".join(path.notes)
    path.save(tmp_path)
    again = wd.load(tmp_path)
    assert again.notes == path.notes
    with pytest.raises(wd.InputError, match="18 coefficients are too many"):
        again.standard_errors()


def test_calibration_and_confusion_are_of_held_out_rows():
    sklearn = pytest.importorskip("sklearn.metrics")
    X, y = rows(3)
    path = wd.logistic_path(X, y, LAM)
    P = path.out_of_fold(path.one_se)
    expected = sklearn.confusion_matrix(y.numpy(), P.argmax(1).numpy())
    np.testing.assert_array_equal(path.confusion(path.one_se).drop("class").to_numpy(), expected)
    place = int((path.lambdas - path.one_se).abs().argmin())
    assert float(path.curves["error"][place]) == pytest.approx(1 - np.trace(expected) / 90)
    table = path.calibration(path.one_se, bins=4).table
    assert table["rows"].sum() == 90
    assert path.calibration(path.one_se).lam == path.one_se
    with pytest.raises(wd.InputError, match="bins = 0"):
        path.calibration(bins=0)


def test_strengths_are_checked():
    path = wd.logistic_path(*rows(2), LAM)
    for lam, message in ((0.0, "no penalty at all: lam = 0; give a λ above 0"), (-1.0, "not a strength")):
        with pytest.raises(wd.InputError, match=message):
            path.coef(lam)
    with pytest.raises(wd.InputError, match="one λ is needed: lam = 2 values"):
        path.coef(torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(path.coef(torch.tensor(0.01, dtype=torch.float64)), path.coef(0.01))


def test_a_path_is_pickled_with_its_data():
    path = wd.logistic_path(*rows(3), LAM)
    again = pickle.loads(pickle.dumps(path))
    assert same(again.coef(0.5), path.coef(0.5))
    assert again.notes == path.notes
    assert "tensor" not in repr(path)


def test_predictions_name_what_is_wrong():
    path = wd.logistic_path(*frame(), LAM)
    new = frame()[0].head(3)
    for table, message in (
        (new.drop("a"), "a"),
        (new.with_columns(place=pl.lit("west")), "the fit has not seen this level"),
        (new.with_columns(a=pl.lit(float("nan"))), "X[0, 'a']"),
    ):
        with pytest.raises(wd.InputError) as caught:
            path.predict_proba(table)
        assert message in str(caught.value)
    assert path.model().predict_proba(new.with_columns(place=pl.lit("west")), unseen="base").shape == (3, 3)
    with pytest.raises(wd.InputError, match="the wrong shape"):
        wd.logistic_path(*rows(3), LAM).predict(torch.ones(2, 4))
