"""What makes held-out errors too small: columns that give the target away, rows in several folds."""

from collections.abc import Callable, Iterable, Sequence

import polars as pl
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from weightdecay.text import Text

CLOSE = 0.999  # correlation beyond which a column is taken for the target in another form
ENOUGH = 10  # rows: of fewer some column may come so close by chance
NAMED = 3  # columns in the sentence

Blocks = Iterable[tuple[Float[Tensor, "b p"], Float64[Tensor, "b t"]]]


def leak(
    correlations: Float64[Tensor, "p t"],
    blocks: Callable[[], Blocks],
    n: int,
    features: Sequence[str] | None,
    targets: Sequence[str] | None,
) -> tuple[Text, ...]:
    """Say which column equals a target in every row, and which ones determine it, |r| > .999; mostly none.

    These are doubts and no errors: a few rows of whole numbers may be equal by chance.

    Args:
        correlations: of the columns with the targets; NaN where one does not vary.
        blocks: the rows again, in any number of blocks; read only where a correlation is high, and as long as
            columns are equal.
        n: how many rows there are.
        features: the columns' names, or None.
        targets: the targets' names, or None.

    >>> import torch
    >>> X = torch.tensor([[1.0, 3.0], [2.0, 4.0], [5.0, 0.0]], dtype=torch.float64)
    >>> r = torch.tensor([[-0.9608], [1.0]], dtype=torch.float64)
    >>> leak(r, lambda: [(X, X[:, 1:])], 3, None, ["y"])
    ("X[:, 1] equals 'y' in every row: a column is the target itself; drop it",)
    >>> leak(r, lambda: [(X, X[:, 1:] + 1)], 3, None, None)
    ()
    """
    high = (correlations.mT.abs() > CLOSE).nonzero().cpu()
    if len(high) == 0:
        return ()

    def names(target: int, column: int) -> tuple[str, str]:
        t = correlations.shape[1]
        which = repr(targets[target]) if targets else "y" if t == 1 else f"y[:, {target}]"
        return which, repr(features[column]) if features else f"X[:, {column}]"

    said, same = [], _equal(high, blocks())
    if same:
        which, named = names(*same[0])
        said.append(
            Text(
                f"{named} equals {which} in every row: a column is the target itself; drop it",
                f"{named} 在每一行都等于 {which}：这一列就是目标本身，请去掉它",
            )
        )
    near = [pair for pair in map(tuple, high.tolist()) if pair not in same] if n >= ENOUGH else []
    near.sort(key=lambda pair: -abs(float(correlations[pair[1], pair[0]])))
    for target in sorted({pair[0] for pair in near})[:1]:
        columns = [column for other, column in near if other == target]
        which = names(target, 0)[0]
        each = [
            f"{names(target, column)[1]} (r {_r(float(correlations[column, target]))})"
            for column in columns[:NAMED]
        ]
        more, them = len(columns) - NAMED, "it" if len(columns) == 1 else "them"
        en = ", ".join(each) + (f" and {more:,} more" if more > 0 else "")
        zh = "、".join(each) + (f" 等共 {len(columns):,} 列" if more > 0 else "")
        said.append(
            Text(
                f"{which} is almost determined by {en}: is that the target in other units, or known only "
                f"after it? then drop {them}",
                f"{which} 几乎完全由 {zh} 决定：如果这是换了单位的目标，或要在目标之后才知道，请去掉",
            )
        )
    return tuple(said)


def _r(value: float) -> str:
    """A correlation near 1, with the digits that tell it from 1.

    >>> _r(0.99934), _r(-0.9999412), _r(1 - 1e-9)
    ('= 0.9993', '= -0.999941', '> 0.999999')
    """
    if abs(value) > 0.999999:
        return "> 0.999999" if value > 0 else "< -0.999999"
    return f"= {value:.4f}" if abs(value) < 0.9999 else f"= {value:.6f}"


def _equal(pairs: Int64[Tensor, "k 2"], blocks: Blocks) -> list[tuple[int, ...]]:
    """The pairs (target, column) that are equal in every row; reading stops where none is left."""
    for X, y in blocks:
        y = y.to(X.dtype)
        for rows in (8, 128, len(X)):  # a few rows rule out almost all columns
            target, column = pairs.to(X.device).unbind(1)
            pairs = pairs[(X[:rows, column] == y[:rows, target]).all(0).cpu()]
        if len(pairs) == 0:
            break
    return [*map(tuple, pairs.tolist())]


def repeated(X: pl.DataFrame, y: pl.DataFrame, rows: pl.Series, folds: pl.Series | None) -> tuple[Text, ...]:
    """Say how many rows stand in another fold, too, with the same inputs and target; nothing where none.

    Args:
        X: the inputs.
        y: the targets.
        rows: the rows' numbers in the file.
        folds: the fold of each row; None where rows are held out one by one.

    >>> table = pl.DataFrame({"a": [1, 2, 1, 1], "y": [0, 1, 0, 1]})
    >>> found = repeated(table.select("a"), table.select("y"), pl.Series([1, 2, 3, 4]), None)
    >>> found[0].split(":")[0]
    '2 of 4 rows stand in another fold, too, with the same inputs and target, rows 1 and 3 first'
    """
    hashes = X.hstack(y).hash_rows(0)
    if hashes.n_unique() == len(hashes):
        return ()
    table = pl.DataFrame({"hash": hashes, "row": rows, "fold": rows if folds is None else folds})
    table = table.filter((pl.col("fold").n_unique() > 1).over("hash"))
    if table.height == 0:
        return ()
    first = table.filter(pl.col("hash") == table["hash"][0])
    one = first["row"][0]
    other = first.filter(pl.col("fold") != first["fold"][0])["row"][0]
    count, n = table.height, len(hashes)
    return (
        Text(
            f"{count:,} of {n:,} rows stand in another fold, too, with the same inputs and target, "
            f"rows {one} and {other} first: if they are copies of a case, or the same case measured again, "
            "held-out errors are too small; take copies out, or name the column that says which rows belong "
            "together (--groups)",
            f"{n:,} 行中有 {count:,} 行在另一折中也有输入和目标都相同的行"
            f"（首先是第 {one} 行和第 {other} 行）："
            "如果它们是重复的记录，或是同一对象的多次测量，留出误差就会偏小；请去掉重复的行，"
            "或用 --groups 指明哪些行同属一组的那一列",
        ),
    )
