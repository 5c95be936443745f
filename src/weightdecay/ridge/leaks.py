"""A column of the inputs that is the target itself: then there is nothing to predict."""

from collections.abc import Sequence

from jaxtyping import Float, Float64
from torch import Tensor

from weightdecay.errors import InputError


def target_among(X: Float[Tensor, "n p"], y: Float64[Tensor, "n t"]) -> tuple[int, int] | None:
    """Places of a column and a target that are equal in every row; a few rows rule out almost all columns.

    >>> import torch
    >>> X = torch.tensor([[1.0, 3.0], [2.0, 4.0]], dtype=torch.float64)
    >>> target_among(X, X[:, 1:]), target_among(X, X[:, 1:] + 1)
    ((1, 0), None)
    """
    y = y.to(X.dtype)
    for target in range(y.shape[1]):
        suspects = (X[0] == y[0, target]).nonzero()[:, 0]
        for rows in (8, 128, len(X)):
            if len(suspects) == 0:
                break
            suspects = suspects[(X[:rows, suspects] == y[:rows, target, None]).all(0)]
        if len(suspects):
            return int(suspects[0]), target
    return None


def leak(
    X: Float[Tensor, "n p"],
    y: Float64[Tensor, "n t"],
    features: Sequence[str] | None,
    targets: Sequence[str] | None,
) -> tuple[str, ...]:
    """What there is to say of a column that is the target itself: a sentence, or none.

    Refused in a table of named columns. Without names it is a doubt: arrays of a few rows of whole numbers
    may be equal by chance, as some in scikit-learn's `check_estimator` are.

    Raises:
        InputError: a named column equals a target; both are named.
    """
    found = target_among(X, y)
    if found is None:
        return ()
    column, target = found
    which = repr(targets[target]) if targets else "y" if y.shape[1] == 1 else f"y[:, {target}]"
    if features:
        named = f"{features[column]!r}, which equals {which} in every row"
        raise InputError("a column is the target itself", "X", named, "drop the column")
    return (f"X[:, {column}] equals {which} in every row: a column is the target itself; drop it",)
