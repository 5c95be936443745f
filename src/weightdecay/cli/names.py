"""Names of columns on the command line."""

import re

NAME = re.compile(r'\s*"((?:[^"]|"")*)"\s*(?:,|\Z)|([^,]*)(?:,|\Z)')


def names(text: str | None) -> tuple[str, ...]:
    """Names between commas, without white space around them; a name in double quotes is taken as it is.

    >>> names('water, "a, b"," c"')
    ('water', 'a, b', ' c')
    >>> names(""), names(None)
    (('',), ())
    """
    found: list[str] = []
    at = 0
    while text is not None and at <= len(text):
        match = NAME.match(text, at)
        assert match is not None
        quoted, plain = match.groups()
        found.append(plain.strip() if quoted is None else quoted.replace('""', '"'))
        at = match.end() + (not match[0].endswith(","))
    return tuple(found)
