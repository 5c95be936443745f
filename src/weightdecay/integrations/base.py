"""Classes of libraries that may not be installed, as bases of ours."""

import importlib
from typing import Any

from weightdecay.errors import InputError


def with_base(cls: type, module: str, name: str) -> type[Any]:
    """The class with a base from another library, which is imported now and not before.

    Raises:
        InputError: the library is not installed.

    >>> class Mine: pass
    >>> with_base(Mine, "collections", "OrderedDict").__mro__[1:3]
    (<class 'weightdecay.integrations.base.Mine'>, <class 'collections.OrderedDict'>)
    """
    library = module.partition(".")[0]
    try:
        base = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != library:
            raise
        remedy = f"pip install 'weightdecay[{library}]'"
        raise InputError(f"{library} is not installed", cls.__module__, remedy=remedy) from None
    if issubclass(cls, base):
        return cls
    return type(cls.__name__, (cls, base), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})
