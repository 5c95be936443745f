"""Settings: the notes' defaults, and every number that makes no sense refused."""

import itertools
import json
import math
from pathlib import Path

import pytest
from tests.helpers import small

from weightdecay.errors import InputError
from weightdecay.textbook.settings import Experiment, Synthetic, TableFile, draw
from weightdecay.units import grid

TECATOR = {"path": "examples/data/tecator.csv", "target": "fat", "drop": ("water", "protein")}


def test_the_defaults_are_the_notes():
    e = Experiment().checked()
    assert e.data == Synthetic(
        n_train=20, n_test=100, n_inputs=200, true_weight=0.01, true_bias=0.05, noise=0.01
    )
    assert (e.batch_size, e.lr, e.epochs, e.every, e.init, e.penalize_bias) == (
        5,
        0.003,
        100,
        5,
        "normal",
        False,
    )
    assert e.versions == ("scratch", "concise")
    assert e.steps == 400


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"data": Synthetic(n_train=0)}, ["n_train = 0"]),
        ({"data": Synthetic(n_test=-1)}, ["n_test = -1"]),
        ({"data": Synthetic(noise=-1.0)}, ["noise = -1"]),
        ({"data": Synthetic(true_weight=math.nan)}, ["true_weight = nan"]),
        ({"batch_size": 13}, ["batch", "batch_size = 13", "n_train = 12"]),
        ({"lambdas": (-1.0,)}, ["λ must not be negative", "lambda = -1"]),
        ({"lambdas": (math.nan,)}, ["lambda = nan"]),
        ({"lambdas": (math.inf,)}, ["lambda = inf"]),
        ({"lambdas": ()}, ["no λ"]),
        ({"lambdas": (1.0, 1.0)}, ["twice", "1"]),
        ({"lambdas": (100.0,)}, ["overshoots", "lambda = 100", "lr·λ = 1", "λ < 100"]),
        ({"lr": 0.0}, ["step size", "lr = 0"]),
        ({"lr": math.nan}, ["lr = nan"]),
        ({"bias_lr": -1.0}, ["bias_lr = -1"]),
        ({"epochs": 0}, ["epochs = 0"]),
        ({"every": 0}, ["every = 0"]),
        ({"seeds": 0}, ["seeds = 0"]),
        ({"seed": -1}, ["seed = -1"]),
        ({"init": "ones"}, ["init = 'ones'", "normal, zero"]),
        ({"dtype": "float16"}, ["dtype = 'float16'"]),
        ({"versions": ("scratch", "keras")}, ["version = 'keras'", "two-optimizers"]),
        ({"versions": ()}, ["at least one version"]),
        ({"curve": (0.1, -0.1)}, ["curve = -0.1"]),
        ({"data": TableFile(**TECATOR, n_train=300)}, ["too few rows", "n_train = 300", "215 rows"]),
        ({"data": TableFile(**TECATOR, n_train=200, n_test=16)}, ["too few rows", "16 must be left"]),
        ({"data": Synthetic(n_inputs=10**10)}, ["too large", "GB at once"]),
        ({"seeds": 10**9}, ["too large"]),
        ({"data": Synthetic(true_weight=1e200)}, ["true_weight = 1e+200"]),
    ],
)
def test_what_makes_no_sense_is_refused(changes, parts):
    with pytest.raises(InputError) as caught:
        small(**changes).checked()
    for part in parts:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [Synthetic(n_train=7), TableFile(**TECATOR, n_train=40)])
def test_settings_survive_json(data):
    e = Experiment(data=data, lambdas=(0.0, 3.0), seeds=3, penalize_bias=True)
    assert Experiment.from_dict(json.loads(json.dumps(e.to_dict()))) == e


@pytest.mark.parametrize(
    "values", [{}, {"data": {}}, {"data": {"kind": "Other"}}, {"data": {"kind": "Synthetic"}, "x": 1}]
)
def test_settings_of_something_else_are_refused(values):
    with pytest.raises(InputError, match="not the settings"):
        Experiment.from_dict(values)


def test_a_table_is_split_and_standardised_with_its_training_part():
    one = draw(TableFile(**TECATOR, n_train=40), seed=3)
    assert one.X.shape == (40, 100)
    assert one.X_test.shape == (175, 100)
    assert float(one.X.mean(0).abs().max()) < 1e-12
    assert float((one.X.std(0, correction=0) - 1).abs().max()) < 1e-12
    assert float(one.X_test.mean(0).abs().max()) > 1e-3
    both = sorted([*one.y.tolist(), *one.y_test.tolist()])
    assert both == sorted(TableFile(**TECATOR).table.y.tolist())


def test_a_target_that_is_constant_in_the_training_part(tmp_path):
    rows = "".join(f"{i},{0 if i < 99 else 1}\n" for i in range(100))
    (tmp_path / "t.csv").write_text("a,y\n" + rows)
    with pytest.raises(InputError, match="constant in the training part"):
        draw(TableFile(str(tmp_path / "t.csv"), "y", n_train=3), seed=0)


def test_grids():
    assert grid("0,3") == (0.0, 3.0)
    values = grid("1e-3:100:40")
    assert len(values) == 40
    assert (values[0], values[-1]) == (1e-3, 100.0)
    ratios = [b / a for a, b in itertools.pairwise(values)]
    assert max(ratios) == pytest.approx(min(ratios), rel=1e-12)
    for wrong in (
        "",
        "x",
        "1:2",
        "1:2:1",
        "0:1:5",
        "2:1:5",
        "1:2:1000000000",
        "1:2:3:4",
        "1:inf:3",
        "1:2:2.5",
        "0,,3",
    ):
        with pytest.raises(InputError, match="neither a number nor a range"):
            grid(wrong)


def test_watched_are_the_ends_and_some_between():
    assert small(lambdas=(0.0, 3.0)).watched == (0.0, 3.0)
    assert small(lambdas=tuple(range(10))).watched == (0, 3, 6, 9)


def test_lists_and_whole_numbers_are_welcome():
    e = Experiment(lambdas=[0, 3], versions=["scratch"], curve=[1])
    assert e == Experiment(lambdas=(0.0, 3.0), versions=("scratch",), curve=(1.0,))
    assert Experiment(versions="scratch").versions == ("scratch",)
    assert TableFile(Path("a.csv"), "y", "b") == TableFile("a.csv", "y", ("b",))
    assert hash(e) == hash(Experiment(lambdas=(0.0, 3.0), versions=("scratch",), curve=(1.0,)))
