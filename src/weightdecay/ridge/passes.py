"""What a second pass over the rows takes: the rows in blocks, and which of them each split holds out.

Partial functions of this module, not functions inside of others: a path can be pickled with them.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import torch
from jaxtyping import Int64
from torch import Tensor

from weightdecay.ridge import moments
from weightdecay.ridge.columns import Problem
from weightdecay.ridge.held_out import Block, Chooser, Rows


def in_memory(problem: Problem) -> Rows:
    """The rows of a problem in blocks."""
    return partial(_blocks, problem)


def by_fold(fold: Int64[Tensor, " n"]) -> Chooser:
    """Held-out places in a block, where every row is in one fold."""
    return partial(_of_folds, fold.cpu(), int(fold.max()) + 1)


def by_pairs(tests: Sequence[Tensor]) -> Chooser:
    """Held-out places in a block, where splits may overlap or leave rows out."""
    return partial(_of_tests, [test.cpu().sort().values for test in tests])


def _blocks(problem: Problem) -> Iterator[Block]:
    n, p = problem.X.shape
    step = max(moments.LEAST_ROWS, moments.BLOCK // (4 * p))
    for first in range(0, n, step):
        part = slice(first, min(n, first + step))
        weights = None if problem.weights is None else problem.weights[part]
        yield Block(first, problem.X[part], problem.y[part], weights)


def _of_folds(fold: Tensor, K: int, first: int, count: int) -> Sequence[Tensor]:
    here = fold[first : first + count]
    return here.argsort(stable=True).split(here.bincount(minlength=K).tolist())


def _of_tests(tests: Sequence[Tensor], first: int, count: int) -> Sequence[Tensor]:
    ends = torch.tensor([first, first + count])
    return [test[slice(*torch.searchsorted(test, ends).tolist())] - first for test in tests]
