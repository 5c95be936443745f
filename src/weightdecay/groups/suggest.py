"""What somebody may have meant: the closest of the names that exist."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher


def closest(word: str, names: Iterable[str], count: int = 3) -> list[str]:
    """The names most like a word or pattern, best first; equally good ones in their own order.

    >>> closest("layer.*.weigth", ["layers.0.weight", "head.bias", "layers.1.weight"], 2)
    ['layers.0.weight', 'layers.1.weight']
    """
    plain = re.sub(r"^re:|[*?\\^$()\[\]+]", "", word).lower()

    def likeness(name: str) -> float:
        lower = name.lower()
        inside = bool(plain) and plain in lower
        return inside + SequenceMatcher(None, plain, lower, autojunk=False).ratio()

    return sorted(dict.fromkeys(names), key=likeness, reverse=True)[:count]
