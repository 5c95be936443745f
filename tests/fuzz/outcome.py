"""What one random case comes to."""

import warnings
from collections.abc import Callable

from weightdecay.errors import InputError


def outcome(case: Callable[[int], str | None], seed: int) -> str | None:
    """The fault that a case shows, or None; the package's own refusals are no fault, every other error is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return case(seed)
    except InputError:
        return None
    except Exception as error:  # a raw error that reached the caller is what is looked for
        return f"raw {type(error).__name__}: {error}"
