"""Which rows are held out together: shuffled folds by row number, groups, any scikit-learn splitter."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.route import Scheme

CRITERIA = {"loo": "loo", "leave-one-out": "loo", "gcv": "gcv", "evidence": "evidence"}
REMEDY = "give a number of folds, 'loo', 'gcv', 'evidence', a splitter or pairs (train, test)"


@dataclass(frozen=True)
class Splits:
    """How λ is judged, and what a report says of it.

    Args:
        scheme: "loo", "gcv", "evidence", a fold for each row (n,), or pairs of rows (train, test).
        text: the same in words.
    """

    scheme: Scheme
    text: str


def fold_ids(first_row: int, count: int, K: int, seed: int) -> Int64[Tensor, " count"]:
    """The fold of each row by its number in the whole data, so that shards and blocks agree with the whole.

    Each K rows in a row are a random permutation of the K folds: folds differ by one row at most.

    Args:
        first_row: number of the first row, from 0.
        count: how many rows.
        K: number of folds.
        seed: another seed, other folds.

    >>> whole = fold_ids(0, 12, K=3, seed=1)
    >>> torch.equal(torch.cat([fold_ids(0, 5, 3, 1), fold_ids(5, 7, 3, 1)]), whole), whole.bincount().tolist()
    (True, [4, 4, 4])
    """
    start = first_row // K
    stop = (first_row + count - 1) // K + 1 if count else start
    rows = np.arange(start * K, stop * K, dtype=np.uint64)
    keys = _mixed(_mixed(np.array([seed % 2**64], dtype=np.uint64)) ^ rows).reshape(-1, K)
    # A rank by comparisons where K is small: ten times faster than to sort many short lines.
    if K <= 16:
        folds = np.stack([(keys < keys[:, k : k + 1]).sum(1) for k in range(K)], axis=1)
    else:
        folds = np.argsort(keys, axis=1)
    offset = first_row - start * K
    return torch.from_numpy(folds.ravel()[offset : offset + count].astype(np.int64))


def splits(
    cv: Any, n: int, seed: int = 0, groups: Any = None, X: Any = None, y: Any = None, rows: Any = None
) -> Splits:
    """What `cv` means for n rows.

    Args:
        cv: a number of folds; "loo", "gcv" or "evidence"; an object with scikit-learn's `split`;
            or pairs (training rows, test rows), row numbers or masks.
        n: number of rows.
        seed: shuffles the folds of an integer `cv`.
        groups: a label for each row (n,): rows of one label are never on both sides. Integer `cv` deals the
            groups to folds of about equal size.
        X: for splitters that look at the inputs.
        y: for splitters that look at the target.
        rows: numbers of the rows in the data as given, where some were dropped before (n,).

    Raises:
        InputError: fewer rows or groups than folds, less than two folds, folds that share rows between
            training and test, an empty side, row numbers out of range, labels of another length.
    """
    if groups is not None:
        groups = _labels(groups, n)
    if isinstance(cv, str):
        if cv.lower() not in CRITERIA:
            raise InputError("no such criterion", "cv", repr(cv), REMEDY)
        if groups is not None:
            raise InputError(
                "groups need folds", "cv", repr(cv), "give a number of folds, or a group splitter"
            )
        if n < 2:
            raise InputError("too few rows", "rows", n, "two are needed at least")
        name = CRITERIA[cv.lower()]
        return Splits(name, name)  # pyright: ignore[reportArgumentType]
    if isinstance(cv, bool):
        raise InputError("not a way to hold rows out", "cv", cv, REMEDY)
    if isinstance(cv, (int, np.integer)):
        return _counted(int(cv), n, seed, groups, rows)
    if hasattr(cv, "split"):
        if groups is None:
            pairs = cv.split(X if X is not None else np.zeros((n, 1)), y)
        else:
            pairs = cv.split(X if X is not None else np.zeros((n, 1)), y, groups)
        return _from_pairs(_guarded(pairs, cv), n, type(cv).__name__)
    if isinstance(cv, Iterable):
        if groups is not None:
            raise InputError("groups need a splitter", "cv", "given pairs", "leave groups out")
        return _from_pairs(cv, n, "given splits")
    raise InputError("not a way to hold rows out", "cv", repr(cv), REMEDY)


def _counted(K: int, n: int, seed: int, groups: Any, rows: Any) -> Splits:
    """K folds, shuffled; groups stay together."""
    if K < 2:
        raise InputError("too few folds", "cv", K, "two are needed at least")
    if groups is not None:
        return Splits(_deal(groups, K, seed), f"{K} folds by group, shuffled, seed {seed}")
    if n < K:
        raise InputError("fewer rows than folds", "cv", K, f"there are {n} rows; use fewer folds")
    if rows is None:
        fold = fold_ids(0, n, K, seed)
    else:
        rows = torch.as_tensor(rows)
        fold = fold_ids(0, int(rows.max()) + 1, K, seed)[rows]
        if int(fold.bincount(minlength=K).min()) == 0:  # what was dropped left a fold empty
            fold = fold_ids(0, n, K, seed)
    return Splits(fold, f"{K} folds, shuffled, seed {seed}")


def _deal(groups: Int64[Tensor, " n"], K: int, seed: int) -> Int64[Tensor, " n"]:
    """Groups to folds: the largest first, each to the fold with the fewest rows; ties by lot."""
    sizes = groups.bincount()
    if len(sizes) < K:
        raise InputError(
            "fewer groups than folds", "cv", K, f"there are {len(sizes)} groups; use fewer folds"
        )
    luck = torch.from_numpy(
        _mixed(np.arange(len(sizes), dtype=np.uint64) ^ _mixed(_seed(seed))).view(np.int64)
    )
    order = sorted(range(len(sizes)), key=lambda g: (-int(sizes[g]), int(luck[g])))
    of_group, filled = torch.zeros(len(sizes), dtype=torch.int64), [0] * K
    for g in order:
        k = min(range(K), key=lambda k: filled[k])
        of_group[g] = k
        filled[k] += int(sizes[g])
    return of_group[groups]


def _from_pairs(pairs: Iterable[Any], n: int, name: str) -> Splits:
    """Pairs as given; a fold for each row where every row is held out once by all others."""
    fold = torch.full((n,), -1, dtype=torch.int64)
    kept: list[tuple[Tensor, Tensor]] | None = None
    count = 0
    for pair in pairs:
        train, test = _pair(pair, n, count)
        if kept is None:
            if len(train) + len(test) == n and bool((fold[test] < 0).all()):
                fold[test] = count
            else:  # no partition after all: what the folds so far stood for
                kept = [_of_fold(fold, k) for k in range(count)]
        if kept is not None:
            kept.append((train, test))
        count += 1
    if count == 0:
        raise InputError("no split was given", "cv", None, REMEDY)
    text = f"{name}, {count} {'split' if count == 1 else 'splits'}"
    if kept is None and bool((fold >= 0).all()):
        if count == n:
            return Splits("loo", name)
        return Splits(fold, text)
    return Splits(kept if kept is not None else [_of_fold(fold, k) for k in range(count)], text)


def _of_fold(fold: Tensor, k: int) -> tuple[Tensor, Tensor]:
    return (fold != k).nonzero()[:, 0], (fold == k).nonzero()[:, 0]


def _pair(pair: Any, n: int, number: int) -> tuple[Tensor, Tensor]:
    """Checked row numbers of one split, ascending."""
    where = f"split {number + 1} of cv"
    try:
        train, test = pair
    except (TypeError, ValueError) as error:
        raise InputError("not a pair (train, test)", where, type(pair).__name__, REMEDY) from error
    sides = []
    for side, given in (("training", train), ("test", test)):
        rows = torch.as_tensor(np.asarray(given))
        if rows.dtype == torch.bool and len(rows) == n:
            rows = rows.nonzero()[:, 0]
        if rows.numel() == 0:
            raise InputError(f"no {side} rows", where, None, "leave the split out, or use fewer")
        if rows.ndim != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
            raise InputError(
                f"{side} rows are not row numbers", where, rows.dtype, "give integers, or a mask"
            )
        if int(rows.min()) < 0 or int(rows.max()) >= n:
            bad = int(rows.min()) if int(rows.min()) < 0 else int(rows.max())
            raise InputError("no such row", where, bad, f"there are rows 0 to {n - 1}")
        sides.append(rows.long().sort().values)
    mark = torch.zeros(n, dtype=torch.bool)
    mark[sides[0]] = True
    if bool(mark[sides[1]].any()):
        row = int(sides[1][mark[sides[1]]][0])
        raise InputError("a row is both trained on and tested", where, f"row {row}", "take it out of one")
    return sides[0], sides[1]


def _guarded(pairs: Iterable[Any], cv: Any) -> Iterable[Any]:
    """A splitter's own complaint, in this package's form."""
    try:
        yield from pairs
    except InputError:
        raise
    except ValueError as error:
        raise InputError("the splitter refuses", "cv", type(cv).__name__, str(error)) from error


def _labels(groups: Any, n: int) -> Int64[Tensor, " n"]:
    """Labels of any kind -> 0, 1, … in their order."""
    labels = np.asarray(groups)
    if labels.shape != (n,):
        raise InputError("not a group for each row", "groups", labels.shape, f"give {n} labels")
    return torch.from_numpy(np.unique(labels, return_inverse=True)[1].astype(np.int64))


def _seed(seed: int) -> Any:
    return np.array([seed % 2**64], dtype=np.uint64)


def _mixed(x: Any) -> Any:
    """SplitMix64's finaliser: a hash of 64 bits (Steele, Lea and Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
