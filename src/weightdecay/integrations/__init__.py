"""What the callbacks have in common: attach a rule, audit, monitor, and the state of it all."""

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn, optim

from weightdecay.arguments import count
from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.hooks import Decay, attach
from weightdecay.hooks.decay import attached
from weightdecay.rules import Chain, Rule

if TYPE_CHECKING:
    from weightdecay.auditing.record import Audit
    from weightdecay.monitor.run import Monitor


class Callback:
    """A rule attached, an audit before the first step, monitors during the run.

    Args:
        rule: a decay rule, attached to every optimizer; a list with one (or None) for each optimizer; None to
            leave the optimizers with the decay they have.
        check: whether to audit before the first step and raise if there is an error.
        every: steps between two looks of a monitor; None for no monitor.
        sinks: where the monitors write, as in `Monitor`.
        audit_options: for `audit`, such as `ignore` and `groups`.
        attach_options: for `attach`, such as `on` and `steps_per_epoch`.

    Attributes:
        decays: what is attached: the rule given here, or those found.
        audit: the audit made before the first step, or None.
        monitors: one for each optimizer.
    """

    base: tuple[str, str]  # the module and the name of the other library's class

    def __new__(cls, *_: Any, **__: Any) -> Any:
        """Make one that is a callback of the library too, which is imported now."""
        return object.__new__(with_base(cls, *cls.base))

    def __init__(
        self,
        rule: Any = None,
        *,
        check: bool = True,
        every: int | None = None,
        sinks: Sequence[Any] = (),
        audit_options: Mapping[str, Any] | None = None,
        **attach_options: Any,
    ) -> None:
        for part in rule if isinstance(rule, (list, tuple)) else [rule]:
            if part is not None and not isinstance(part, (Rule, Chain)):
                remedy = "give a rule such as wd.Decoupled(0.1), a list with one for each optimizer, or None"
                raise InputError("not a decay rule", "rule", repr(part), remedy)
        self._rule = rule
        self._check, self._sinks = check, tuple(sinks)
        self._every = None if every is None else count(every, "every", least=2)
        self._audit_options, self._attach_options = dict(audit_options or {}), attach_options
        self._own: list[Decay] = []
        self._loaded: Mapping[str, Any] | None = None
        self.decays: tuple[Decay, ...] = ()
        self.audit: Audit | None = None
        self.monitors: tuple[Monitor, ...] = ()

    def _attach(self, model: nn.Module, optimizers: Sequence[optim.Optimizer]) -> None:
        """Attach the rule, once to each optimizer, and find what else is attached.

        Raises:
            InputError: as `weightdecay.attach`, or another number of rules than optimizers.
        """
        rules = self._rules(len(optimizers))
        for optimizer, rule in zip(optimizers, rules, strict=True):
            if rule is None or any(decay.optimizer is optimizer for decay in self._own):
                continue
            self._own.append(attach(optimizer, rule, model=model, **self._attach_options))
        self.decays = tuple(decay for optimizer in optimizers for decay in attached(optimizer))

    def _run_audit(self, model: nn.Module, optimizers: Sequence[optim.Optimizer], **known: Any) -> None:
        """Audit what will be trained.

        Args:
            model: the model.
            optimizers: its optimizers.
            known: what the training loop knows of the run; what the user said goes first.

        Raises:
            FindingsError: there is an error.
        """
        if not self._check:
            return
        from weightdecay.auditing.run import audit

        self.audit = audit(model, *optimizers, **{**known, **self._audit_options})
        self.audit.check()

    def _start_monitors(self, model: nn.Module, optimizers: Sequence[optim.Optimizer]) -> None:
        """Watch every optimizer, and go on where a loaded state ended."""
        if self._every is None:
            return
        from weightdecay.monitor.run import Monitor

        self._close()
        self.monitors = tuple(
            Monitor(model, optimizer, every=self._every, sinks=self._sinks) for optimizer in optimizers
        )
        states, self._loaded = (self._loaded or {}).get("monitors", []), None
        for monitor, state in zip(self.monitors, states, strict=False):
            monitor.load_state_dict(state)

    def _close(self) -> None:
        """End the monitors; what they saw stays."""
        for monitor in self.monitors:
            monitor.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors: the state of every decay and monitor."""
        return {
            "decays": [decay.state_dict() for decay in self.decays],
            "monitors": [monitor.state_dict() for monitor in self.monitors],
        }

    def load_state_dict(self, state_dict: Any) -> None:
        """Take over what `state_dict` gave; that of monitors waits until they start.

        Raises:
            InputError: the state of other decays.
        """
        if not isinstance(state_dict, Mapping) or not {"decays", "monitors"} <= set(state_dict):
            what, remedy = "not the state of a WeightDecay callback", "give its state_dict()"
            raise InputError(what, "state", type(state_dict).__name__, remedy)
        saved = state_dict["decays"]
        if len(saved) != len(self.decays):
            what = "the checkpoint was made with another number of rules"
            rules = ", ".join(str(state["rule"]) for state in saved) or "none"
            here = ", ".join(decay.shown for decay in self.decays) or "none"
            raise InputError(what, "rules", rules, f"here are {here}: attach the same")
        for decay, state in zip(self.decays, saved, strict=True):
            decay.load_state_dict(state)
        self._loaded = state_dict

    def _rules(self, optimizers: int) -> Sequence[Rule | Chain | None]:
        if not isinstance(self._rule, (list, tuple)):
            return [self._rule] * optimizers
        if len(self._rule) != optimizers:
            what, remedy = "another number of rules than optimizers", f"give {optimizers}; None for no rule"
            raise InputError(what, "rule", len(self._rule), remedy)
        return self._rule


def warn_of_no_state(decays: Sequence[Decay]) -> None:
    """Say that a checkpoint knows nothing of the rules that are attached now."""
    if decays:
        shown = ", ".join(decay.shown for decay in decays)
        warnings.warn(
            f"the checkpoint has no state of the decay: {shown} begins at its step 0", WeightDecayWarning, 2
        )


def with_base(cls: type, module: str, name: str) -> type[Any]:
    """The class with a base from another library, which is imported now and not before.

    Raises:
        InputError: the library is not installed.

    >>> class Mine: pass
    >>> with_base(Mine, "collections", "OrderedDict").__mro__[1:3]
    (<class 'weightdecay.integrations.Mine'>, <class 'collections.OrderedDict'>)
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
