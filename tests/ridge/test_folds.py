"""Which rows are held out: the same whoever asks, balanced, checked."""

import numpy as np
import pytest
import torch

from weightdecay.errors import InputError
from weightdecay.ridge.folds import fold_ids, splits


@pytest.mark.parametrize("K", [2, 5, 16, 17, 100])
def test_folds_by_row_number_do_not_depend_on_the_block(K):
    whole = fold_ids(0, 1000, K, seed=3)
    parts = [fold_ids(first, 77, K, 3) for first in range(0, 1000, 77)]
    assert torch.equal(torch.cat(parts)[:1000], whole)
    assert not torch.equal(fold_ids(0, 1000, K, 4), whole)
    counts = whole.bincount(minlength=K)
    assert int(counts.max() - counts.min()) <= 1
    for first in range(0, 1000 - K, K):  # each K rows are a permutation
        assert whole[first : first + K].sort().values.tolist() == list(range(K))


def test_folds_are_spread_evenly_over_places():
    fold = fold_ids(0, 60_000, 6, seed=0).reshape(-1, 6)
    counts = torch.stack([column.bincount(minlength=6) for column in fold.T]).double()
    assert float(((counts - 10_000 / 6) ** 2 / (10_000 / 6)).sum()) < 60  # chi squared, 25 degrees of freedom
    pairs = (fold[:-1] * 6 + fold[1:]).flatten().bincount(minlength=36).double()
    assert float(((pairs - pairs.mean()) ** 2 / pairs.mean()).sum()) < 80


def test_groups_stay_together_and_folds_are_balanced():
    groups = np.repeat(np.array(list("abcdefghij")), [5, 9, 2, 7, 7, 3, 1, 8, 4, 4])
    found = splits(3, 50, seed=1, groups=groups)
    fold = found.scheme.numpy()
    assert all(len(set(fold[groups == g])) == 1 for g in set(groups))
    assert np.bincount(fold).tolist() in ([17, 17, 16], [17, 16, 17], [16, 17, 17])
    assert "group" in found.text


class Halves:
    def split(self, X, y=None, groups=None):
        rows = np.arange(len(X))
        yield rows[: len(X) // 2], rows[len(X) // 2 :]
        yield rows[len(X) // 2 :], rows[: len(X) // 2]


def test_splitters_that_partition_are_folds_and_others_are_pairs():
    assert splits(Halves(), 10).scheme.tolist() == [1] * 5 + [0] * 5
    leave_one = [([j for j in range(4) if j != i], [i]) for i in range(4)]
    assert splits(leave_one, 4).scheme == "loo"
    pairs = [(np.arange(3), [3, 4]), (np.arange(5), [5, 6])]
    found = splits(pairs, 8).scheme
    assert [(a.tolist(), b.tolist()) for a, b in found] == [([0, 1, 2], [3, 4]), (list(range(5)), [5, 6])]
    late = [([2, 3], [0, 1]), ([0, 1], [2, 3]), ([1, 2, 3], [0])]  # a partition, and one more
    assert [len(test) for _, test in splits(late, 4).scheme] == [2, 2, 1]
    masks = [(np.array([True, False, True, True]), np.array([False, True, False, False]))]
    assert splits(masks, 4).scheme[0][1].tolist() == [1]


def test_pairs_are_folds_only_where_each_row_is_held_out_once_by_all_others():
    """Their lengths may add up to n by a row that is named twice and one that is not named."""
    every = np.arange(6)
    halves = [(every[:3], every[3:]), (every[3:], every[:3])]
    assert isinstance(splits(halves, 6).scheme, torch.Tensor)
    for train, test in (
        ([0, 0, 1], [3, 4, 5]),
        ([0, 1, 2], [3, 4, 4]),
        ([1, 1], [2, 3, 4, 5]),
        ([0, 1], [3, 4]),
    ):
        for pairs in ([(train, test), halves[1]], [halves[1], (train, test)]):
            scheme = splits(pairs, 6).scheme
            assert isinstance(scheme, list)
            place = 0 if pairs[0][0] is train else 1
            assert [side.tolist() for side in scheme[place]] == [train, test]
    one_by_one = [(np.delete(every, i), [i]) for i in every]
    assert splits(one_by_one, 6).scheme == "loo"
    assert isinstance(splits([*one_by_one[:5], ([0, 0, 1, 2, 3], [5])], 6).scheme, list)


@pytest.mark.parametrize(
    ("cv", "options", "part"),
    [
        (1, {}, "too few folds"),
        (11, {}, "fewer rows than folds"),
        (3, {"groups": [0] * 5 + [1] * 5}, "fewer groups than folds"),
        (3, {"groups": [0, 1]}, "not a group for each row"),
        ("loocv", {}, "no such criterion"),
        ("loo", {"groups": [0] * 10}, "groups need folds"),
        (2.5, {}, "not a way to hold rows out"),
        (True, {}, "not a way"),
        ([([0, 1], [1, 2])], {}, "both trained on and tested"),
        ([([0, 1], [])], {}, "no test rows"),
        ([([0, 1], [10])], {}, "no such row"),
        ([([0.5], [1])], {}, "not row numbers"),
        ([3], {}, "not a pair"),
        ([], {}, "no split"),
    ],
)
def test_what_cannot_be_used(cv, options, part):
    with pytest.raises(InputError, match=part):
        splits(cv, 10, **options)
