"""Runtime type checks for the tests: beartype, with int allowed where float is asked for (PEP 484).

jaxtyping's decorator binds the arguments of every call, to compare their shapes with one another: it was more
than half of the tests' time. Where no annotation has a shape, beartype alone checks the same.
"""

import dataclasses
import inspect
from functools import partial
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
with_shapes = jaxtyping.jaxtyped


def has_shapes(annotation: Any) -> bool:
    """Whether it is a shape or contains one, as a string might."""
    if isinstance(annotation, str):
        return True
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(has_shapes(part) for part in get_args(annotation))


def jaxtyped(decorated: Any = None, *, typechecker: Any) -> Any:
    """What jaxtyping's import hook decorates functions and classes with."""
    if decorated is None:
        return partial(jaxtyped, typechecker=typechecker)
    function = decorated.__init__ if inspect.isclass(decorated) else decorated
    if any(map(has_shapes, getattr(function, "__annotations__", {}).values())):
        return with_shapes(decorated, typechecker=typechecker)
    if not inspect.isclass(decorated):
        return typechecker(decorated)
    if dataclasses.is_dataclass(decorated):
        decorated.__init__ = typechecker(decorated.__init__)
    return decorated


jaxtyping.jaxtyped = jaxtyped  # the hook looks it up here
