"""What every parameter of `architectures` is for, written by hand from the models' sources.

One line is a letter and a pattern of names (`*` also passes dots); the first that fits counts, each has to
fit something, and every parameter has to be met. b bias, n normalization, e embedding, h head (a weight that
is also an embedding, or that the model itself returns as its output embedding), c convolution, m matrix,
o other. A capital: the model exempts it. A `=` says that names are one parameter.
"""

from tests.peers import language_roles, vision_roles

ROLES = {**language_roles.ROLES, **vision_roles.ROLES}

LETTERS = {
    **{"b": "bias", "n": "normalization", "e": "embedding", "h": "head"},
    **{"c": "convolution", "m": "matrix", "o": "other"},
}


def lines(name):
    """The (letter, pattern) rules of an architecture, and its sets of names that are one parameter."""
    rows = [line.split() for line in ROLES[name].strip().splitlines()]
    return [tuple(row) for row in rows if row[0] != "="], [set(row[1:]) for row in rows if row[0] == "="]
