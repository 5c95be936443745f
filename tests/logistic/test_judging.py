"""Scores of probabilities against scikit-learn's, row weights included."""

import numpy as np
import pytest
import torch

pytest.importorskip("sklearn")
from sklearn import metrics
from sklearn.calibration import calibration_curve

import weightdecay as wd
from weightdecay.logistic.judging import (
    auc_parts,
    calibration,
    check_judge,
    confusion,
    names_of_classes,
    probabilities,
    row_losses,
)


def rows(C, n=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, 1 if C == 2 else C, generator=generator, dtype=torch.float64)
    codes = torch.randint(0, C, (n,), generator=generator)
    return logits, codes, torch.rand(n, generator=generator, dtype=torch.float64) + 0.1


@pytest.mark.parametrize("C", [2, 3, 7])
def test_losses_are_those_of_scikit_learn(C):
    logits, codes, weights = rows(C)
    log_loss, error, brier = (row_losses(logits, codes) @ weights / weights.sum()).tolist()
    P, labels, w = probabilities(logits).numpy(), codes.numpy(), weights.numpy()
    assert log_loss == pytest.approx(metrics.log_loss(labels, P, sample_weight=w), rel=1e-12)
    assert error == pytest.approx(metrics.zero_one_loss(labels, P.argmax(1), sample_weight=w), rel=1e-12)
    if C == 2:
        expected = metrics.brier_score_loss(labels, P[:, 1], sample_weight=w)
    else:
        expected = np.average(((P - np.eye(C)[labels]) ** 2).sum(1), weights=w)
    assert brier == pytest.approx(expected, rel=1e-12)


def test_losses_stay_finite_far_from_the_boundary():
    logits = torch.tensor([[-800.0], [800.0]], dtype=torch.float64)
    assert row_losses(logits, torch.tensor([1, 0])).tolist() == [[800, 800], [1, 1], [1, 1]]
    both = torch.tensor([[0.0, 800.0, -800.0]], dtype=torch.float64)
    assert row_losses(both, torch.tensor([2])).tolist() == [[1600], [1], [2]]


@pytest.mark.parametrize("ties", [False, True])
def test_the_area_under_the_curve(ties):
    logits, codes, weights = rows(2)
    score = logits[:, 0].round() if ties else logits[:, 0]
    area, error = auc_parts(score, codes, weights)
    expected = metrics.roc_auc_score(codes.numpy(), score.numpy(), sample_weight=weights.numpy())
    assert area == pytest.approx(expected, rel=1e-12)
    assert 0.02 < error < 0.06
    assert np.isnan(auc_parts(score, torch.zeros_like(codes), weights)[0])


def test_its_standard_error_is_that_of_drawing_rows_again():
    generator = torch.Generator().manual_seed(1)
    areas, said = [], []
    for _ in range(400):
        codes = (torch.arange(120) < 50).long()
        score = torch.randn(120, generator=generator, dtype=torch.float64) + codes
        area, error = auc_parts(score, codes, torch.ones(120, dtype=torch.float64))
        areas.append(area)
        said.append(error)
    assert np.std(areas) == pytest.approx(np.mean(said), rel=0.1)


def test_reliability_is_that_of_scikit_learn():
    logits, codes, _ = rows(2, n=2000)
    P = probabilities(logits)
    found = calibration(P, codes, torch.ones(2000, dtype=torch.float64), 0.1)
    observed, predicted = calibration_curve(codes.numpy(), P[:, 1].numpy(), n_bins=10)
    np.testing.assert_allclose(found.table["observed"], observed, rtol=1e-12)
    np.testing.assert_allclose(found.table["predicted"], predicted, rtol=1e-12)
    share = found.table["rows"].to_numpy() / 2000
    assert found.error == pytest.approx(float((share * np.abs(observed - predicted)).sum()), rel=1e-12)


def test_reliability_of_several_classes_is_of_the_predicted_one():
    logits, codes, _ = rows(3, n=2000)
    P = probabilities(logits)
    found = calibration(P, codes, torch.ones(2000, dtype=torch.float64), 0.1, bins=5)
    confidence, right = P.max(1).values.numpy(), (P.argmax(1) == codes).numpy()
    observed, predicted = calibration_curve(right, confidence, n_bins=5)
    np.testing.assert_allclose(found.table["observed"], observed, rtol=1e-12)
    np.testing.assert_allclose(found.table["predicted"], predicted, rtol=1e-12)


def test_weights_count_as_rows_in_reliability():
    logits, codes, _ = rows(2)
    P, times = probabilities(logits), torch.arange(200) % 3
    weighted = calibration(P, codes, times.double(), 0.1)
    many = torch.arange(200).repeat_interleave(times)
    repeated = calibration(P[many], codes[many], torch.ones(len(many), dtype=torch.float64), 0.1)
    assert weighted.error == pytest.approx(repeated.error, rel=1e-12)
    np.testing.assert_allclose(weighted.table["observed"], repeated.table["observed"], rtol=1e-12)


@pytest.mark.parametrize("C", [2, 4])
def test_confusion_is_that_of_scikit_learn(C):
    logits, codes, weights = rows(C)
    P = probabilities(logits)
    table = confusion(P, codes, None, "abcd"[:C])
    expected = metrics.confusion_matrix(codes.numpy(), P.argmax(1).numpy())
    assert table.columns == ["class", *(f"predicted {name}" for name in "abcd"[:C])]
    np.testing.assert_array_equal(table.drop("class").to_numpy(), expected)
    weighted = confusion(P, codes, weights, "abcd"[:C]).drop("class").to_numpy()
    expected = metrics.confusion_matrix(codes.numpy(), P.argmax(1).numpy(), sample_weight=weights.numpy())
    np.testing.assert_allclose(weighted, expected, rtol=1e-12)


def test_names_and_judges():
    assert names_of_classes((0.0, 1.0)) == ("0", "1")
    assert names_of_classes((0.5, 1.0)) == ("0.5", "1.0")
    assert names_of_classes((False, True)) == ("False", "True")
    with pytest.raises(wd.InputError, match="no such judge: judge = 'accuracy'; use log_loss, error, brier"):
        check_judge("accuracy", 2)
    with pytest.raises(wd.InputError, match="defined for two classes: judge = 'auc', 3 classes"):
        check_judge("auc", 3)
