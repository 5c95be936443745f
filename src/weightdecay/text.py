"""A sentence in both languages of the package, made once, where its fact is known."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

LANGUAGES = ("en", "zh")
_used = "en"


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
    return [chinese(text) for text in texts]


def texts_of(english: Sequence[str], chinese: Sequence[str] | None) -> tuple[Text, ...]:
    """Read sentences back from a file; those of files without Chinese stay English in both languages."""
    pairs = zip(english, english if chinese is None else chinese, strict=True)
    return tuple(Text(en, zh) for en, zh in pairs)


def use(language: str) -> None:
    """Print in this language from now on: one of `LANGUAGES`. Files and JSON are the same in all of them."""
    global _used
    assert language in LANGUAGES
    _used = language


def used() -> str:
    """Return the language that is printed in."""
    return _used


def local(text: str) -> str:
    """Return a sentence in the language that is printed in; a plain string stands for itself."""
    return text.zh if _used == "zh" and isinstance(text, Text) else text


def chinese(text: Any) -> Any:
    """Return the Chinese of a sentence; anything else stands for itself."""
    return text.zh if isinstance(text, Text) else text


def local_list(texts: Iterable[str]) -> str:
    """Return words with commas between them, in the language that is printed in."""
    return ("，" if _used == "zh" else ", ").join(map(local, texts))


def columns_of(text: str) -> int:
    """Return how many columns a text fills in a terminal: two for a Chinese character."""
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def padded(text: str, width: int, right: bool = False) -> str:
    """Fill a text up with spaces to so many columns of a terminal."""
    space = " " * (width - columns_of(text))
    return space + text if right else text + space
