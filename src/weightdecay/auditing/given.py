"""What a user gives to an audit: a model, optimizers, a scaler; checked, and wrappers taken off."""

from collections.abc import Iterable
from typing import Any

from torch import nn, optim
from torch.optim.lr_scheduler import LRScheduler

from weightdecay.errors import InputError
from weightdecay.hooks import Decay
from weightdecay.hooks.refuse import bare_optimizer

_REMEDY = "give the optimizers that step: wd.audit(model, optimizer)"


def checked_model(model: Any) -> nn.Module:
    """The model.

    Raises:
        InputError: it is none.
    """
    if isinstance(model, nn.Module):
        return model
    if isinstance(model, type) and issubclass(model, nn.Module):
        raise InputError(
            "a class where a model is needed", "model", model.__name__, f"give {model.__name__}(...)"
        )
    remedy = "give the torch.nn.Module first, then its optimizers; of several models an nn.ModuleList"
    raise InputError("not a model", "model", type(model).__name__, remedy)


def checked_optimizers(given: Iterable[Any]) -> tuple[optim.Optimizer, ...]:
    """The optimizers, each once, wrappers taken off; lists of them are opened.

    Raises:
        InputError: something is no optimizer of torch's kind, or there is none.
    """
    found: list[optim.Optimizer] = []
    for one in given:
        several = list(one) if isinstance(one, (list, tuple, set)) else [one]
        for item in several:
            optimizer = _optimizer(item)
            if all(optimizer is not other for other in found):
                found.append(optimizer)
    if not found:
        raise InputError("no optimizer", "optimizers", "nothing", _REMEDY)
    return tuple(found)


def _optimizer(given: Any) -> optim.Optimizer:
    if isinstance(given, Decay):
        return given.optimizer
    given = bare_optimizer(given)
    if isinstance(given, LRScheduler):
        remedy = "give it as schedule=, and its optimizer here"
        raise InputError(
            "a scheduler where an optimizer is needed", "optimizers", type(given).__name__, remedy
        )
    if isinstance(given, type):
        kind = "an optimizer's class" if issubclass(given, optim.Optimizer) else "a class"
        what = f"{kind} where an optimizer is needed"
        raise InputError(what, "optimizers", given.__name__, f"give {given.__name__}(parameters, lr=...)")
    groups = getattr(given, "param_groups", None)
    whole = isinstance(groups, list) and all(isinstance(one, dict) and "params" in one for one in groups)
    if not isinstance(given, optim.Optimizer) or not whole:
        what = "not an optimizer of torch's kind"
        remedy = "it has to be a torch.optim.Optimizer whose __init__ has run"
        raise InputError(what, "optimizers", type(given).__name__, remedy)
    return given


def checked_scaler(scaler: Any) -> Any:
    """The gradient scaler, or None.

    Raises:
        InputError: it is none.
    """
    own = all(hasattr(scaler, name) for name in ("unscale_", "is_enabled", "scale"))
    if scaler is None or (own and not isinstance(scaler, type)):
        return scaler
    kind = scaler if isinstance(scaler, type) else type(scaler)
    raise InputError("not a gradient scaler", "scaler", kind.__name__, "give a torch.amp.GradScaler()")


def titles(optimizers: tuple[optim.Optimizer, ...]) -> tuple[str, ...]:
    """A name for each: its class, with its position where another has the same class."""
    kinds = [type(one).__name__ for one in optimizers]
    return tuple(
        f"{kind} ({i + 1} of {len(kinds)})" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)
    )
