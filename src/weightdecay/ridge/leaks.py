"""A column of the inputs that is the target itself: then there is nothing to predict."""

from collections.abc import Iterable, Sequence

from jaxtyping import Float, Float64, Int64
from torch import Tensor


def leak(
    blocks: Iterable[tuple[Float[Tensor, "b p"], Float64[Tensor, "b t"]]],
    features: Sequence[str] | None,
    targets: Sequence[str] | None,
) -> tuple[str, ...]:
    """What there is to say of a column that equals a target in every row: a sentence, or none.

    It is a doubt and no error: a few rows of whole numbers may be equal by chance.

    Args:
        blocks: the rows, in any number of blocks; reading stops where no column is left.
        features: the columns' names, or None.
        targets: the targets' names, or None.

    >>> import torch
    >>> X = torch.tensor([[1.0, 3.0], [2.0, 4.0]], dtype=torch.float64)
    >>> leak([(X, X[:, 1:])], None, ["y"])
    ("X[:, 1] equals 'y' in every row: a column is the target itself; drop it",)
    >>> leak([(X, X[:, 1:] + 1)], None, None)
    ()
    """
    pairs: Int64[Tensor, "k 2"] | None = None
    t = 0
    for X, y in blocks:
        y, t = y.to(X.dtype), y.shape[1]
        if pairs is None:
            if len(X) == 0:
                continue
            pairs = (X[0] == y[0, :, None]).nonzero()
        for rows in (8, 128, len(X)):  # a few rows rule out almost all columns
            target, column = pairs.unbind(1)
            pairs = pairs[(X[:rows, column] == y[:rows, target]).all(0)]
        if len(pairs) == 0:
            return ()
    if pairs is None:
        return ()
    target, column = pairs[0].tolist()
    which = repr(targets[target]) if targets else "y" if t == 1 else f"y[:, {target}]"
    named = repr(features[column]) if features else f"X[:, {column}]"
    return (f"{named} equals {which} in every row: a column is the target itself; drop it",)
