"""Which rows are held out together: shuffled folds by row number, groups, any scikit-learn splitter."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.route import Scheme

CRITERIA = {"loo": "loo", "leave-one-out": "loo", "gcv": "gcv", "evidence": "evidence"}
REMEDY = (
    "give a number of folds, 'loo', 'gcv', 'evidence', a fold for each row, a splitter or pairs (train, test)"
)


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
        folds = np.empty(keys.shape, dtype=np.int64)
        for k in range(K):
            folds[:, k] = (keys < keys[:, k : k + 1]).sum(1)
    else:
        folds = np.argsort(keys, axis=1)
    offset = first_row - start * K
    return torch.from_numpy(folds.ravel()[offset : offset + count].astype(np.int64))


def places(fold: Int64[Tensor, " b"], K: int) -> Sequence[Int64[Tensor, " m"]]:
    """Return the places of each of K folds among some rows, ascending."""
    return fold.argsort(stable=True).split(fold.bincount(minlength=K).tolist())


def splits(cv: Any, n: int, seed: int = 0, groups: Any = None, X: Any = None, y: Any = None) -> Splits:
    """What `cv` means for n rows.

    Args:
        cv: a number of folds, as a text too; "loo", "gcv" or "evidence"; a fold's number for each row, as a
            tensor or array (n,); an object with scikit-learn's `split`; or pairs (training rows, test rows),
            row numbers or masks. A row that is named twice counts twice. None is 5, as in scikit-learn.
        n: number of rows.
        seed: shuffles the folds of an integer `cv`.
        groups: a label for each row (n,): rows of one label are never on both sides. Integer `cv` deals the
            groups to folds of about equal size.
        X: for splitters that look at the inputs.
        y: for splitters that look at the target.

    Raises:
        InputError: fewer rows or groups than folds, less than two folds, folds that share rows between
            training and test, an empty side, row numbers out of range, labels of another length or none.
    """
    cv = as_given(cv)
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
        K = int(cv)
        if K < 2:
            raise InputError("too few folds", "cv", K, "two are needed at least")
        if groups is not None:
            fold = _deal(groups, K, seed)
            return Splits("loo" if n == K else fold, f"{K} folds by group, shuffled, seed {seed}")
        if n < K:
            raise InputError("fewer rows than folds", "cv", K, f"there are {n} rows; use fewer folds")
        if n == K:
            return Splits("loo", f"{n} folds of one row")
        return Splits(fold_ids(0, n, K, seed), f"{K} folds, shuffled, seed {seed}")
    if hasattr(cv, "split") and not isinstance(cv, Tensor):
        there = (np.zeros((n, 1)) if X is None else X, _on_cpu(y), *(() if groups is None else (groups,)))
        return _from_pairs(_guarded(cv, there), n, getattr(cv, "name", type(cv).__name__))
    if isinstance(cv, Iterable):
        cv = _on_cpu(cv)
        if groups is not None:
            raise InputError("groups need a splitter", "cv", "given pairs", "leave groups out")
        if isinstance(cv, np.ndarray) and cv.ndim == 1 and cv.dtype.kind in "iu":
            return _numbered(cv, n)
        return _from_pairs(cv, n, "given splits")
    raise InputError("not a way to hold rows out", "cv", repr(cv), REMEDY)


def as_given(cv: Any) -> Any:
    """What scikit-learn's users and a command line write, as this package means it: None is 5, "5" is 5."""
    if cv is None:
        return 5
    return int(cv) if isinstance(cv, str) and cv.strip().isdecimal() else cv


def _on_cpu(values: Any) -> Any:
    """NumPy's array of a tensor, on any device; anything else as it is."""
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _numbered(fold: np.ndarray, n: int) -> Splits:
    """A fold's number for each row."""
    if len(fold) != n:
        raise InputError("not a fold for each row", "cv", f"{len(fold)} numbers", f"give {n}")
    if n and int(fold.min()) < 0:
        raise InputError("not the number of a fold", "cv", int(fold.min()), "give 0 or more")
    numbers, ids = np.unique(fold, return_inverse=True)
    if len(numbers) < 2:
        raise InputError("too few folds", "cv", len(numbers), "two are needed at least")
    if len(numbers) == n:
        return Splits("loo", f"{n} given folds")
    return Splits(torch.from_numpy(ids.astype(np.int64)), f"{len(numbers)} given folds")


def _deal(groups: Int64[Tensor, " n"], K: int, seed: int) -> Int64[Tensor, " n"]:
    """Groups to folds: the largest first, each to the fold with the fewest rows; ties by lot."""
    sizes = groups.bincount()
    if len(sizes) < K:
        raise InputError(
            "fewer groups than folds", "cv", K, f"there are {len(sizes)} groups; use fewer folds"
        )
    luck = torch.from_numpy(
        _mixed(
            np.arange(len(sizes), dtype=np.uint64) ^ _mixed(np.array([seed % 2**64], dtype=np.uint64))
        ).view(np.int64)
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
            if each_once(train, test, n) and bool((fold[test] < 0).all()):
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


def each_once(train: Tensor, test: Tensor, n: int) -> bool:
    """Whether two sides together name every row, and none twice."""
    return len(train) + len(test) == n and int(torch.cat([train, test]).bincount(minlength=n).max()) == 1


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
    for side, values in (("training", train), ("test", test)):
        try:
            rows = np.asarray(_on_cpu(values))
        except (TypeError, ValueError) as error:
            raise InputError(f"{side} rows are not row numbers", where, str(error)[:60], REMEDY) from error
        if rows.dtype == np.bool_ and rows.shape == (n,):
            rows = rows.nonzero()[0]
        if rows.size == 0:
            raise InputError(f"no {side} rows", where, None, "leave the split out, or use fewer")
        if rows.ndim != 1 or rows.dtype.kind not in "iu":
            kind = f"{rows.dtype}, shape {rows.shape}"
            raise InputError(f"{side} rows are not row numbers", where, kind, "give integers, or a mask")
        if int(rows.min()) < 0 or int(rows.max()) >= n:
            bad = int(rows.min()) if int(rows.min()) < 0 else int(rows.max())
            raise InputError("no such row", where, bad, f"there are rows 0 to {n - 1}")
        sides.append(torch.from_numpy(np.sort(rows.astype(np.int64))))
    mark = torch.zeros(n, dtype=torch.bool)
    mark[sides[0]] = True
    if bool(mark[sides[1]].any()):
        row = int(sides[1][mark[sides[1]]][0])
        raise InputError("a row is both trained on and tested", where, f"row {row}", "take it out of one")
    return sides[0], sides[1]


def _guarded(cv: Any, there: tuple[Any, ...]) -> Iterable[Any]:
    """A splitter's pairs, or its own complaint, in this package's form."""
    try:
        pairs = cv.split(*there)
        if not isinstance(pairs, Iterable):
            raise InputError("the splitter gives no splits", "cv", type(cv).__name__, f"it gave {pairs!r}")
        yield from pairs
    except InputError:
        raise
    except ValueError as error:
        raise InputError("the splitter refuses", "cv", type(cv).__name__, str(error)) from error


def _labels(groups: Any, n: int) -> Int64[Tensor, " n"]:
    """Labels of one kind -> 0, 1, … in their order."""
    # As objects: an array of a list with a text in it makes texts of None and NaN.
    labels = np.asarray(_on_cpu(groups), dtype=object if isinstance(groups, list | tuple) else None)
    if labels.shape != (n,):
        raise InputError("not a group for each row", "groups", labels.shape, f"give {n} labels")
    for row in labels if labels.dtype.kind == "O" else labels[labels != labels]:
        if row is None or type(row).__name__ == "NAType" or row != row:
            raise InputError("a row without a group", "groups", str(row), "give every row a label")
    try:
        ids = np.unique(labels, return_inverse=True)[1]
    except TypeError as error:
        kinds = " and ".join(sorted({type(label).__name__ for label in labels}))
        raise InputError("labels of several kinds", "groups", kinds, "give numbers, or texts") from error
    return torch.from_numpy(ids.astype(np.int64))


def _mixed(x: Any) -> Any:
    """SplitMix64's finaliser: a hash of 64 bits (Steele, Lea and Flood 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
