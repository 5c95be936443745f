"""Inputs of which few cells are filled, and the products that ridge takes of them without the empty ones.

Products go by the filled cells alone. Where a line of cells is well filled a dense product is faster, and a
column's mean is large beside its standard deviation, so that taking it out of a product would cost digits:
such columns (`crowded`) are made dense, a few at a time, and centred before anything is multiplied. Of the
others the mean's square is at most `CROWDED` of the mean square, and centring them is a term of rank one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from weightdecay.errors import InputError
from weightdecay.ridge.linalg import gram

CROWDED = 1 / 16  # of the cells of a line: beyond, a dense product of it takes less time than its pairs
PAIRS = 1 << 20  # of cells that are multiplied together: 8 MB for each of the vectors
NUMBERS = 1 << 19  # in a dense block: 4 MB


@dataclass(frozen=True, eq=False)
class SparseInputs:
    """A table of float64 in which the cells that are not listed are 0.

    Args:
        shape: rows and columns.
        row: the row of each cell, ascending (c,).
        col: its column; no cell is listed twice (c,).
        values: its number (c,).
    """

    shape: tuple[int, int]
    row: Int64[Tensor, " c"]
    col: Int64[Tensor, " c"]
    values: Float64[Tensor, " c"]

    dtype = torch.float64
    device = torch.device("cpu")
    ndim = 2

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: "slice | Int64[Tensor, ' m']") -> "SparseInputs":
        """Some rows, each as often as it is named."""
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)))
        first = self._starts[rows]
        counts = self._starts[rows + 1] - first
        ends = counts.cumsum(0)
        cells = torch.arange(int(counts.sum())) + (first - ends + counts).repeat_interleave(counts)
        row = torch.arange(len(rows)).repeat_interleave(counts)
        return SparseInputs((len(rows), self.shape[1]), row, self.col[cells], self.values[cells])

    def __matmul__(self, B: Float64[Tensor, "p *t"]) -> Float64[Tensor, "n *t"]:
        return self._times(self.row, self.col, B.new_zeros(len(self), *B.shape[1:]), B)

    def transposed_times(self, A: Float64[Tensor, "n *t"]) -> Float64[Tensor, "p *t"]:
        """X'A."""
        return self._times(self.col, self.row, A.new_zeros(self.shape[1], *A.shape[1:]), A)

    def of_columns(self, some: Int64[Tensor, " w"]) -> "SparseInputs":
        """Some columns, in the order in which they are named."""
        place = torch.full((self.shape[1],), -1)
        place[some] = torch.arange(len(some))
        col = place[self.col]
        kept = col >= 0
        return SparseInputs((len(self), len(some)), self.row[kept], col[kept], self.values[kept])

    def dense(self) -> Float64[Tensor, "n p"]:
        """The table with its empty cells."""
        table = torch.zeros(self.shape, dtype=torch.float64)
        table[self.row, self.col] = self.values
        return table

    def blocks(self) -> Iterator[tuple[slice, Float64[Tensor, "b p"]]]:
        """Yield the rows in dense blocks, with their places."""
        step = max(1, NUMBERS // max(1, self.shape[1]))
        for first in range(0, len(self), step):
            part = slice(first, min(first + step, len(self)))
            yield part, self[part].dense()

    def products_of_rows(self, scale: Float64[Tensor, " p"]) -> Float64[Tensor, "n n"]:
        """X diag(scale²) X'."""
        order = self.col.argsort(stable=True)
        col = self.col[order]
        return _products(col, self.row[order], (self.values * scale[self.col])[order], *self.shape[::-1])

    def products_of_columns(self, scale: Float64[Tensor, " n"]) -> Float64[Tensor, "p p"]:
        """X' diag(scale²) X."""
        return _products(self.row, self.col, self.values * scale[self.row], *self.shape)

    def crowded(self, weights: Float64[Tensor, " n"] | None) -> Bool[Tensor, " p"]:
        """Whether of a column more than a share of `CROWDED` is filled, by number or weight."""
        n, p = self.shape
        many = self.col.bincount(minlength=p) > CROWDED * n
        if weights is not None:
            many |= self.col.bincount(weights[self.row], minlength=p) > CROWDED * weights.sum()
        return many

    def ranges(self) -> Float64[Tensor, " p"]:
        """The largest less the smallest number of each column."""
        n, p = self.shape
        full = self.col.bincount(minlength=p) == n
        least, most = torch.where(full, torch.inf, 0.0).double(), torch.where(full, -torch.inf, 0.0).double()
        least.scatter_reduce_(0, self.col, self.values, "amin")
        most.scatter_reduce_(0, self.col, self.values, "amax")
        return most - least

    @cached_property
    def _starts(self) -> Int64[Tensor, " n1"]:
        """Place of each row's first cell, and the number of cells."""
        return torch.searchsorted(self.row, torch.arange(len(self) + 1))

    def _times(self, to: Tensor, of: Tensor, total: Tensor, B: Tensor) -> Tensor:
        step = max(1, NUMBERS // max(1, total[:1].numel()))
        unit = (1,) * (B.ndim - 1)
        for first in range(0, len(to), step):
            part = slice(first, first + step)
            total.index_add_(0, to[part], B[of[part]] * self.values[part].reshape(-1, *unit))
        return total


def _products(
    group: Int64[Tensor, " c"],
    place: Int64[Tensor, " c"],
    values: Float64[Tensor, " c"],
    groups: int,
    side: int,
) -> Float64[Tensor, "side side"]:
    """Σ over groups of the outer product of their values: pair by pair, those of crowded groups as a matrix.

    Args:
        group: of each cell, ascending.
        place: of each cell in its group's vector.
        values: of the cells.
        groups: how many there are.
        side: the length of a vector.
    """
    total = torch.zeros(side, side, dtype=torch.float64)
    size = group.bincount(minlength=groups)
    cells = (size <= CROWDED * side)[group]
    if not bool(cells.all()):
        heavy = SparseInputs((groups, side), group[~cells], place[~cells], values[~cells])
        many = (size > CROWDED * side).nonzero()[:, 0]
        for some in many.split(max(side, NUMBERS // side)):
            total += gram(heavy[some].dense().mT)
        group, place, values = group[cells], place[cells], values[cells]
        size = group.bincount(minlength=groups)
    # Each cell with those that follow it in its group: one of the two triangles.
    follow = size.cumsum(0)[group] - torch.arange(len(group)) - 1
    ends, flat, pairs = follow.cumsum(0), torch.zeros_like(total), 0
    first = 0
    while first < len(group):
        last = max(first + 1, int(torch.searchsorted(ends, pairs + PAIRS, right=True)))
        count = follow[first:last]
        one = torch.arange(first, last).repeat_interleave(count)
        other = torch.arange(len(one)) - (ends[first:last] - count - pairs).repeat_interleave(count) + one + 1
        flat.view(-1).index_add_(0, place[one] * side + place[other], values[one] * values[other])
        first, pairs = last, int(ends[last - 1])
    total += flat
    total += flat.mT
    total.diagonal().add_(place.bincount(values**2, minlength=side))
    return total


def is_sparse(values: Any) -> bool:
    """Whether values are a sparse matrix or array of SciPy, a sparse tensor, or a frame of sparse columns."""
    if isinstance(values, Tensor):
        return values.layout != torch.strided
    return hasattr(values, "tocsr") or _sparse_frame(values)


def _sparse_frame(values: Any) -> bool:
    """Whether all columns of a pandas DataFrame are sparse, and about 0."""
    dtypes = list(getattr(values, "dtypes", ())) if hasattr(values, "iloc") and values.ndim == 2 else []
    return bool(dtypes) and all(getattr(dtype, "fill_value", None) == 0 for dtype in dtypes)


def sparse_inputs(values: Any, where: str) -> SparseInputs:
    """Read what `is_sparse` says is sparse; a cell that is listed twice is the sum, as in SciPy.

    Raises:
        InputError: not a table, or not of real numbers.
    """
    kind = type(values).__name__
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        dtype, kind = values.dtype, f"{values.layout}"
        real, shape = not dtype.is_complex, tuple(values.shape)
    else:
        values = values.sparse.to_coo() if _sparse_frame(values) else values
        dtype, shape = values.dtype, tuple(values.shape)
        real = dtype.kind in "biuf"
    if not real:
        raise InputError("not real numbers", where, f"{kind} of {dtype}", "give real numbers")
    if len(shape) != 2:
        raise InputError("not a table", where, f"shape {shape}", "give (rows, columns)")
    if isinstance(values, Tensor):
        row, col, cells = _cells_of_tensor(values)
    else:
        coo = values.tocoo()
        row, col = (torch.from_numpy(np.asarray(index, dtype=np.int64)) for index in (coo.row, coo.col))
        cells = torch.from_numpy(np.asarray(coo.data, dtype=np.float64))
    key = row * shape[1] + col
    ahead = key[1:] - key[:-1]
    if bool((ahead < 0).any()):
        order = key.argsort(stable=True)
        row, col, cells = row[order], col[order], cells[order]
        ahead = key[order].diff()
    if bool((ahead == 0).any()):
        key, place = (row * shape[1] + col).unique_consecutive(return_inverse=True)
        row, col = key // shape[1], key % shape[1]
        cells = cells.new_zeros(len(key)).index_add_(0, place, cells)
    return SparseInputs(shape, row, col, cells)


def _cells_of_tensor(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, columns and numbers of the cells that a sparse tensor lists."""
    if values.layout in (torch.sparse_csr, torch.sparse_csc):
        rows = values.layout == torch.sparse_csr
        starts = (values.crow_indices() if rows else values.ccol_indices()).long()
        line = torch.arange(len(starts) - 1).repeat_interleave(starts.diff())
        other = (values.col_indices() if rows else values.row_indices()).long()
        return (line, other, values.values().double()) if rows else (other, line, values.values().double())
    listed = values.to_sparse_coo().coalesce()
    row, col = listed.indices()
    return row, col, listed.values().double()
