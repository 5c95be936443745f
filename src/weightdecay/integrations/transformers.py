"""A callback for the Trainer of transformers."""

from collections.abc import Mapping
from typing import Any

from torch import optim

from weightdecay.errors import InputError
from weightdecay.hooks.optimizers import bare_optimizer
from weightdecay.integrations import Callback, warn_of_no_state

_KEY = "weightdecay"  # of the decay's state in the optimizer's state dict


class WeightDecay(Callback):
    """A callback for `Trainer(optimizers=...)`: attaches a rule, audits, monitors, and resumes bit for bit.

    Args:
        rule: a decay rule for the optimizer given to the Trainer, built with weight_decay=0; None to keep the
            decay that it has.
        check: audit before the first step, and raise if there is an error.
        every: steps between two looks of a `weightdecay.Monitor`; None for none.
        sinks: where it writes.
        audit_options: for `weightdecay.audit`, such as {"ignore": ["WD105"]}.
        attach_options: for `weightdecay.attach`, such as on="all", steps_per_epoch=100.

    Convention: a step is an optimizer step; the state of rule and monitor travels in the optimizer's own file
    of each checkpoint, under "weightdecay". A rule needs `Trainer(optimizers=(optimizer, None))`.

    Raises:
        InputError: transformers is not installed, the rule is none, or the Trainer made its own optimizer.
        FindingsError: at the start of `train`, the audit's errors.

    >>> WeightDecay(Decoupled(0.1), every=50)  # doctest: +SKIP

    Source: events of transformers.TrainerCallback.
    """

    base = "transformers", "TrainerCallback"
    _optimizer: Any = None
    _unknown = False  # whether a loaded state was without the decay's

    def on_init_end(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        """Attach to the optimizer that the Trainer was given, before any state of it is loaded."""
        del args, state, control
        if optimizer is not None:
            self._take(model, optimizer)

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **others: Any
    ) -> None:
        """Audit, and begin to monitor."""
        del control
        inner = bare_optimizer(optimizer)
        if self._optimizer is not inner:
            if self._rule is not None:
                what = "the rule could not be attached before training began"
                remedy = (
                    "give Trainer(optimizers=(optimizer, None), callbacks=[...]) an optimizer of your own"
                )
                raise InputError(what, "optimizer", type(inner).__name__, remedy)
            self._take(model, inner)
        if state.global_step and self._unknown:
            warn_of_no_state(self.decays)
        self._run_audit(model, [inner], **_known(args, state, others))
        self._start_monitors(model, [inner])

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """End the monitor."""
        del args, state, control
        self._close()

    def _take(self, model: Any, optimizer: Any) -> None:
        inner = bare_optimizer(optimizer)
        self._attach(model, [inner])
        self._optimizer = inner
        inner.register_state_dict_post_hook(self._write)
        inner.register_load_state_dict_pre_hook(self._read)

    def _write(self, optimizer: optim.Optimizer, state_dict: dict[str, Any]) -> None:
        del optimizer
        state_dict[_KEY] = self.state_dict()

    def _read(self, optimizer: optim.Optimizer, state_dict: dict[str, Any]) -> None:
        del optimizer
        self._unknown = _KEY not in state_dict
        if not self._unknown:
            self.load_state_dict(state_dict[_KEY])


def _known(args: Any, state: Any, others: Mapping[str, Any]) -> dict[str, Any]:
    """What the Trainer knows of the run."""
    known: dict[str, Any] = {}
    if state.max_steps > 0:
        known["steps"] = state.max_steps
    batches = others.get("train_dataloader")
    if batches is not None and hasattr(batches, "__len__"):
        known["steps_per_epoch"] = max(len(batches) / args.gradient_accumulation_steps, 1)
    # A schedule can be followed from its beginning.
    if "steps" in known and state.global_step == 0 and others.get("lr_scheduler") is not None:
        known["schedule"], known["interval"] = others["lr_scheduler"], "step"  # the Trainer steps it so
    return known
