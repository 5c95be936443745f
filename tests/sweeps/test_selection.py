"""The choice over shared seeds, against closed forms, scipy and hand-made scores."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from tests.sweeps.records import LAMBDAS, ridge_loss, training, trainings

import weightdecay as wd
from weightdecay.select import choose, choose_paired, student_t
from weightdecay.sweeps.run import Leader
from weightdecay.sweeps.selection import Comparison, best_of, selections_of
from weightdecay.sweeps.task import Goal, goal_of

LOSS = Goal()


def scored(scores, strengths=None, **more):
    """Trainings with these test losses: a row each seed."""
    strengths = strengths or [0.0, *(10.0**i for i in range(len(scores[0]) - 1))]
    return [
        training(lam, seed, loss=loss, diverged=None if math.isfinite(loss) else 7, **more)
        for seed, row in enumerate(scores)
        for lam, loss in zip(strengths, row, strict=True)
    ]


def only(trained, goal=LOSS):
    (found,) = selections_of(trained, goal)
    return found


def test_ridge_s_own_best_is_found_and_its_figures_are_numpy_s():
    found = only(trainings())
    expected = np.array([[training(lam, seed).test_loss for lam in LAMBDAS] for seed in range(5)])
    np.testing.assert_array_equal(found.scores, expected)
    np.testing.assert_allclose(found.means, expected.mean(0))
    np.testing.assert_allclose(found.errors, expected.std(0, ddof=1) / 5**0.5)
    assert found.best == 1.0  # λ = σ², where bias² + variance is least
    assert ridge_loss(1.0) == min(map(ridge_loss, LAMBDAS))
    d = expected - expected[:, [5]]
    np.testing.assert_allclose(found.differences, d.mean(0), atol=1e-15)
    np.testing.assert_allclose(found.difference_errors, d.std(0, ddof=1) / 5**0.5, atol=1e-15)
    assert (found.edge, found.flat, found.strengths, found.seeds) == (None, False, LAMBDAS, (0, 1, 2, 3, 4))
    # What seeds do to all strengths alike (± 0.5) does not blur the choice: unpaired, all would be near.
    assert found.flat_range == (1.0, 1.0)
    assert choose(found.means, found.errors).low < 5


def test_the_interval_is_scipy_s_paired_one():
    found = only(trainings())
    test = scipy.stats.ttest_rel(found.scores[:, 0], found.scores[:, 5])
    interval = test.confidence_interval(0.95)
    none = found.no_decay
    assert none.difference == pytest.approx(float((found.scores[:, 0] - found.scores[:, 5]).mean()))
    assert (none.low, none.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert none.tells == (test.pvalue < 0.05)
    for freedom in (1, 2, 7, 30):
        assert student_t(0.95, freedom) == pytest.approx(scipy.stats.t.ppf(0.975, freedom), rel=1e-8)


def test_one_standard_error_takes_the_strongest_that_is_as_near():
    rows = [[9.0, 4.0, 4.1, 4.9, 8.0], [10.0, 5.0, 4.9, 5.7, 9.0], [11.0, 6.0, 6.2, 7.2, 10.0]]
    found = only(scored(rows))
    d = np.array(rows) - np.array(rows)[:, [1]]
    near = d.mean(0) <= d.std(0, ddof=1) / 3**0.5
    assert near.tolist() == [False, True, True, False, False]
    assert (found.best, found.one_se, found.flat_range) == (1.0, 10.0, (1.0, 10.0))


def test_more_is_better_where_it_is_said():
    trained = trainings()
    found = only(trained, Goal("accuracy", maximize=True))
    assert found.best == 1.0
    assert float(found.means[5]) == pytest.approx(1 - only(trained).mean(1.0) / 4)
    assert float(found.differences.min()) == 0
    assert found.no_decay.difference == pytest.approx(only(trained).no_decay.difference / 4)
    assert only(trained, Goal("accuracy")).best != 1.0


def test_a_diverged_seed_rules_its_strength_out():
    rows = [[5.0, 4.0, math.inf, 6.0], [5.1, 4.2, 1.0, 6.0], [5.0, 4.0, 1.0, 6.0]]
    found = only(scored(rows))
    assert (found.best, found.one_se) == (1.0, 1.0)
    assert float(found.means[2]) == float(found.differences[2]) == math.inf
    assert [(one.copy.seed, one.copy.strength, one.diverged) for one in found.diverged] == [(0, 10.0, 7)]
    up = only(scored(rows), Goal("accuracy", maximize=True))
    assert up.best == 1.0
    assert float(up.means[2]) == -math.inf


def test_no_decay_that_diverged_is_infinitely_worse():
    none = only(scored([[math.inf, 2.0, 3.0], [4.0, 2.0, 3.0]])).no_decay
    assert (none.difference, none.low, none.tells, none.seeds_needed) == (math.inf, math.inf, True, None)


def test_everything_diverged_is_an_error_that_names_the_step():
    rows = [[1.0, math.inf], [math.inf, 1.0]]
    with pytest.raises(wd.DivergenceError, match=r"at every strength a training diverged.*first at step 7"):
        selections_of(scored(rows), LOSS)
    with pytest.raises(wd.InputError, match="nothing is finished"):
        selections_of([], LOSS)


def test_one_seed_has_no_interval():
    found = only(trainings(seeds=1))
    assert found.best == 1.0
    assert found.errors.tolist() == found.difference_errors.tolist() == [0.0] * len(LAMBDAS)
    none = found.no_decay
    assert (none.low, none.high, none.tells, none.left_out) == (-math.inf, math.inf, False, None)
    assert found.one_se == 1.0


@pytest.mark.parametrize(
    ("rows", "edge"),
    [
        ([[5.0, 3.0, 2.0, 1.0], [5.0, 3.1, 2.1, 1.0]], "high"),
        ([[5.0, 1.0, 2.0, 3.0], [5.0, 1.1, 2.1, 3.0]], "low"),  # the weakest, still far from none
        ([[1.0, 2.0, 3.0, 4.0], [1.0, 2.1, 3.1, 4.0]], "low"),  # none is best, and the weakest is far from it
        ([[1.1, 1.0, 2.0, 3.0], [0.9, 1.1, 2.1, 3.0]], None),  # the weakest is as good as none: so are weaker
        ([[0.9, 1.0, 2.0, 3.0], [1.1, 1.05, 2.1, 3.0]], None),
        ([[1.0, 1.001, 2.0, 3.0], [2.0, 2.001, 3.0, 4.0]], None),  # a difference that can be told, and tiny
        ([[5.0, 2.0, 1.0, 3.0], [5.0, 2.0, 1.0, 3.0]], None),
        ([[5.0, 2.0, 1.0, math.inf], [5.0, 2.0, 1.0, 1.0]], None),  # beyond it trainings diverge
        ([[5.0, 2.0], [5.0, 2.0]], "high"),
        ([[2.0, 5.0], [2.0, 5.0]], "low"),
    ],
)
def test_the_edge_says_where_to_go_on(rows, edge):
    assert only(scored(rows)).edge == edge


def test_flat_is_said():
    random = np.random.default_rng(1)
    found = only(scored((1 + 0.1 * random.normal(size=(3, 6))).tolist()))
    assert found.flat == (found.flat_range == (found.strengths[0], found.strengths[-1]))
    rows = [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    same = only(scored(rows))
    assert same.flat
    assert (same.best, same.one_se, same.flat_range) == (10.0, 10.0, (0.0, 10.0))
    assert (same.no_decay.difference, same.no_decay.tells) == (0.0, False)


def test_the_second_axis_has_a_best_setting():
    trained = [
        *trainings(lr=0.1, seeds=3),
        *[training(lam, seed, lr=0.2, loss=training(lam, seed).test_loss - 0.01) for seed in range(3)
          for lam in LAMBDAS],
        *trainings(lr=0.1, rule="Cautious", seeds=3),
    ]  # fmt: skip
    found = selections_of(trained, LOSS)
    settings = [("Decoupled", 0.1), ("Decoupled", 0.2), ("Cautious", 0.1)]
    assert [(one.rule, one.lr) for one in found] == settings
    assert best_of(found, LOSS) == 1
    accuracy = Goal("accuracy", maximize=True)
    assert best_of(selections_of(trained, accuracy), accuracy) == 1


def test_of_settings_that_rounding_alone_tells_apart_the_first_is_best():
    """A last bit decides neither at the end nor while trainings arrive."""
    trained = [training(lam, lr=lr, loss=1 + lam) for lr in (0.1, 0.2) for lam in (0.0, 0.1)]
    trained += [training(0.0, rule="Cautious", loss=1 - 2**-53), training(0.1, rule="Cautious", loss=2.0)]
    found = selections_of(trained, LOSS)
    assert best_of(found, LOSS) == 0
    leader = Leader(LOSS, (0,), [(one.rule, one.lr) for one in found])
    leader.add(trained)
    assert leader.best == (("Decoupled", 0.1, 0.0), 1.0)


def test_half_lives_are_in_the_order_of_strength():
    trained = [training(life, loss=life, unit="half_life_epochs") for life in (2.0, 8.0, 4.0)]
    trained.append(training(0.0, loss=9.0, unit="half_life_epochs"))
    found = only(trained)
    assert found.strengths == (0.0, 8.0, 4.0, 2.0)
    assert (found.best, found.edge) == (2.0, "high")


def test_strengths_that_some_seed_has_not_finished_wait():
    trained = [one for one in trainings(seeds=3) if (one.copy.seed, one.copy.strength) != (2, 1.0)]
    found = only(trained)
    assert found.strengths == tuple(lam for lam in LAMBDAS if lam != 1.0)
    assert only([one for one in trained if one.copy.strength != 0]).no_decay is None


def test_leaving_the_judging_seed_out_takes_the_luck_from_the_gain():
    """Pure noise: the best looks better than none, being the least of many; left out, it does not."""
    random = np.random.default_rng(0)
    gains = []
    for _ in range(40):
        none = only(scored(random.normal(size=(6, 12)).tolist())).no_decay
        gains.append((none.difference, none.left_out))
    flattered, left_out = np.mean(gains, axis=0)
    assert flattered > 0.4
    assert abs(left_out) < 0.2
    by_hand = only(scored([[5.0, 4.0, 3.0], [6.0, 2.0, 4.0], [7.0, 5.0, 1.0]])).no_decay
    # without seed 0 the least is at 10, without 1 at 10, without 2 at 1 (3.0 before 3.5)
    assert by_hand.left_out == pytest.approx(((5 - 3) + (6 - 4) + (7 - 5)) / 3)


def test_how_many_seeds_would_tell():
    for difference, deviation, seeds in ((0.5, 1.0, 4), (0.1, 1.0, 8), (1.0, 0.1, 3)):
        half = student_t(0.95, seeds - 1) * deviation / seeds**0.5
        error = deviation / seeds**0.5
        one = Comparison(difference, difference - half, difference + half, error, seeds, None)
        n = one.seeds_needed
        t = [scipy.stats.t.ppf(0.975, m - 1) * deviation / m**0.5 for m in (n, max(2, n - 1))]
        assert t[0] < difference
        assert t[1] >= difference or n == 2
    assert Comparison(0.001, -1, 1, 0.5, 4, None).seeds_needed is None  # more than a thousand
    assert Comparison(-0.1, -1, 1, 0.5, 4, None).seeds_needed is None


@pytest.mark.parametrize(
    ("minimize", "maximize", "metrics", "where"),
    [
        ("error", None, ("accuracy",), "minimize = 'error'; use loss or accuracy"),
        ("loss", "f1", ("accuracy",), "maximize = 'f1'"),
        ("loss", None, ("loss",), "metrics = 'loss'"),
    ],
)
def test_a_score_that_is_none_is_refused(minimize, maximize, metrics, where):
    with pytest.raises(wd.InputError, match=where):
        goal_of(minimize, maximize, metrics)


def test_a_choice_from_pairs_is_one_from_scores_where_one_seed_is_all():
    scores = torch.tensor([[3.0, 1.0, 1.0, 2.0]], dtype=torch.float64)
    found = choose_paired(scores)
    assert found.choice == choose(scores[0], torch.zeros(4))
    assert found.choice.best == 2
    nothing = choose_paired(torch.tensor([[math.inf, 1.0], [1.0, 1.0]], dtype=torch.float64))
    assert (nothing.choice.best, nothing.choice.low, nothing.choice.flat) == (1, 1, False)
