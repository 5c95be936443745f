"""A sentence in both languages of the package, made once, where its fact is known."""

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn


class Text(str):
    """A sentence in English that knows its Chinese; everywhere else it is the `str` of its English.

    Args:
        en: in English.
        zh: in Chinese, with the same numbers.

    >>> note = Text("3 rows", "3 行")
    >>> note, note.zh
    ('3 rows', '3 行')
    """

    __slots__ = ("zh",)
    zh: str

    def __new__(cls, en: str, zh: str) -> "Text":
        """Make it from both."""
        text = super().__new__(cls, en)
        object.__setattr__(text, "zh", zh)
        return text

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a Text does not change: {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied with both."""
        return Text, (str(self), self.zh)


def chinese_of(texts: Iterable[str]) -> list[str]:
    """Return the Chinese of sentences, for a file that keeps both; a plain string stands for itself."""
    return [text.zh if isinstance(text, Text) else text for text in texts]


def texts_of(english: Sequence[str], chinese: Sequence[str] | None) -> tuple[Text, ...]:
    """Read sentences back from a file; those of files without Chinese stay English in both languages."""
    pairs = zip(english, english if chinese is None else chinese, strict=True)
    return tuple(Text(en, zh) for en, zh in pairs)
