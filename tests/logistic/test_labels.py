"""Labels in every form become the classes that scikit-learn finds; what is no classification is refused."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import weightdecay as wd
from weightdecay.logistic.labels import labels_of

FORMS = {
    "texts": (["b", "a", "c", "a"], ("a", "b", "c"), [1, 0, 2, 0]),
    "numbers": ([3, 1, 2, 1], (1, 2, 3), [2, 0, 1, 0]),
    "numbers with a point": ([0.0, 1.0, 1.0], (0.0, 1.0), [0, 1, 1]),
    "whole ones and others": ([0, 1.0, 1, 0], (0.0, 1.0), [0, 1, 1, 0]),
    "booleans": ([True, False, True], (False, True), [1, 0, 1]),
    "an array of texts": (np.array(["no", "yes", "no"]), ("no", "yes"), [0, 1, 0]),
    "bytes": (np.array([b"no", b"yes", b"no"]), ("no", "yes"), [0, 1, 0]),
    "small integers": (np.array([7, 9, 7], dtype=np.uint8), (7, 9), [0, 1, 0]),
    "one column": (np.array([[7], [9], [7]]), (7, 9), [0, 1, 0]),
    "a tensor": (torch.tensor([1, 0, 1]), (0, 1), [1, 0, 1]),
    "half precision": (torch.tensor([1, 0, 1], dtype=torch.bfloat16), (0.0, 1.0), [1, 0, 1]),
    "pandas": (pd.Series(["b", "a", "b"]), ("a", "b"), [1, 0, 1]),
    "pandas categories": (pd.Series(pd.Categorical(["b", "a", "b"], ["c", "b", "a"])), ("a", "b"), [1, 0, 1]),
    "pandas with NA": (pd.Series(pd.array([2, None, 1], "Int64")), (1, 2), [1, np.nan, 0]),
    "pandas frame": (pd.DataFrame({"y": [2, 1, 2]}), (1, 2), [1, 0, 1]),
    "polars": (pl.Series("y", ["b", "a", "b"]), ("a", "b"), [1, 0, 1]),
    "polars categories": (pl.Series("y", ["b", "a", "b"], pl.Enum(["c", "b", "a"])), ("a", "b"), [1, 0, 1]),
    "polars with null": (pl.Series("y", [True, None, False]), (False, True), [1, np.nan, 0]),
    "polars frame": (pl.DataFrame({"y": [2, 1, 2]}), (1, 2), [1, 0, 1]),
    "polars lazy": (pl.LazyFrame({"y": [2, 1, 2]}), (1, 2), [1, 0, 1]),
    "missing ones": (["b", None, "a", float("nan"), "b"], ("a", "b"), [1, np.nan, 0, np.nan, 1]),
    "NaN": (np.array([1.0, np.nan, 0.0, 1.0]), (0.0, 1.0), [1, np.nan, 0, 1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_labels(form):
    given, classes, codes = FORMS[form]
    found = labels_of(given)
    assert found.classes == classes
    assert [type(label) for label in found.classes] == [type(label) for label in classes]
    np.testing.assert_array_equal(found.codes.numpy(), np.array(codes, dtype=float))
    assert found.name == ("y" if "frame" in form or "polars" in form else None)


REFUSED = {
    "nothing": (None, "nothing is given: labels = None"),
    "one class": (["a"] * 4, "one class only: labels = 'a'; give rows of two classes at least"),
    "one class, named": (pl.Series("kind", ["a"] * 4), "one class only: kind = 'a'"),
    "none at all": ([None] * 4, "no row has a label"),
    "a regression": (
        np.linspace(0, 1, 40),
        "numbers of many values: labels = 40 different ones in 40 rows; is",
    ),
    "counts": (np.arange(60) % 30, "numbers of many values: labels = 30 different ones in 60 rows"),
    "identifiers": ([f"row {i}" for i in range(9)], "every row has a class of its own: labels = 9 classes"),
    "infinite": ([0.0, 1.0, np.inf], "a label is not finite: labels = inf"),
    "several kinds": (["a", 1, "b"], "labels of several kinds, or of none: labels = int and str"),
    "objects": ([object(), "a"], "labels of several kinds, or of none: labels = object and str"),
    "one hot": (np.eye(3), "not a label for each row: labels = shape (3, 3)"),
    "two columns": (
        pd.DataFrame({"a": [1, 2], "b": [1, 2]}),
        "a table of several columns: labels = 2 columns",
    ),
    "dates": (pl.Series([1, 2, 3], dtype=pl.Date), "not labels: labels = Date"),
    "NumPy's dates": (
        np.array(["2020-01-01", "2021-01-01"], "datetime64[D]"),
        "not labels: labels = datetime64",
    ),
    "complex": (torch.tensor([1j, 2j]), "not labels: labels"),
    "large": ([2**80, 1], "labels are too large: labels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_classification_is_refused(kind):
    given, message = REFUSED[kind]
    with pytest.raises(wd.InputError) as caught:
        labels_of(given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_many_classes_are_allowed_where_each_has_rows():
    assert len(labels_of(np.arange(1000) % 100).classes) == 100
    assert len(labels_of(["a", "b"]).classes) == 2


def test_classes_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.preprocessing")
    random = np.random.default_rng(0)
    for values in (
        random.choice(["Zürich", "aarau", "Bern", "10", "9"], 50),
        random.integers(-3, 4, 50),
        random.integers(0, 2, 50).astype(bool),
        random.choice([0.5, -1.5, 2.0], 50),
    ):
        encoder = sklearn.LabelEncoder().fit(values)
        found = labels_of(values)
        assert found.classes == tuple(encoder.classes_.tolist())
        np.testing.assert_array_equal(found.codes.numpy(), encoder.transform(values))
