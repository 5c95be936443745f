"""Runtime type checks for the tests: beartype, with int allowed where float is asked for (PEP 484).

jaxtyping's own decorator binds the arguments of every call and checks them a second time with the result, for
the sake of its messages: that was more than half of the tests' time. Here each is checked once, shapes beside
one another where a function has any.
"""

import dataclasses
import functools
import inspect
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import jaxtyping
from beartype import BeartypeConf, beartype

typechecked = beartype(conf=BeartypeConf(is_pep484_tower=True))
of_jaxtyping = getattr(jaxtyping.jaxtyped, "original", jaxtyping.jaxtyped)  # this may be imported twice


def parts(annotation: Any) -> Iterator[Any]:
    """An annotation and all that is inside it."""
    yield annotation
    if get_origin(annotation) is not Literal:
        for part in get_args(annotation):
            yield from parts(part)


def jaxtyped(decorated: Any = None, *, typechecker: Any) -> Any:
    """What jaxtyping's import hook decorates functions and classes with."""
    if decorated is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(decorated):
        if dataclasses.is_dataclass(decorated):
            decorated.__init__ = jaxtyped(decorated.__init__, typechecker=typechecker)
        return decorated
    types = [part for annotation in decorated.__annotations__.values() for part in parts(annotation)]
    shapes = any(inspect.isclass(part) and issubclass(part, jaxtyping.AbstractArray) for part in types)
    strings = any(isinstance(part, str) for part in types)
    if strings or (shapes and inspect.isgeneratorfunction(decorated)):  # which take more than a check
        return of_jaxtyping(decorated, typechecker=typechecker)
    checked = typechecker(decorated)
    if not shapes:
        return checked

    @functools.wraps(decorated)
    def beside_one_another(*args: Any, **kwargs: Any) -> Any:
        with of_jaxtyping("context"):
            return checked(*args, **kwargs)

    return beside_one_another


jaxtyped.original = of_jaxtyping  # pyright: ignore[reportFunctionMemberAccess]
jaxtyping.jaxtyped = jaxtyped  # the hook looks it up here
