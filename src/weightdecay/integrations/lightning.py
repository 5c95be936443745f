"""A callback for Lightning."""

import math
from typing import Any

from weightdecay.integrations import Callback, warn_of_no_state


class WeightDecay(Callback):
    """A Lightning callback: attaches a rule, audits before the first step, monitors, and resumes bit for bit.

    Args:
        rule: a decay rule for the optimizers from `configure_optimizers`, built with weight_decay=0; a
            list with one (or None) for each; None to keep the decay they have.
        check: audit before the first step, and raise if there is an error.
        every: steps between two looks of a `weightdecay.Monitor`; None for none.
        sinks: where it writes.
        audit_options: for `weightdecay.audit`, such as {"ignore": ["WD105"]}.
        attach_options: for `weightdecay.attach`, such as on="all", steps_per_epoch=100.

    Convention: a step is an optimizer step; the state of rules and monitors is this callback's part of each
    checkpoint. `callback.audit`, `callback.decays` and `callback.monitors` are there once training begins.

    Raises:
        InputError: Lightning is not installed, or the rule is none.
        FindingsError: at the start of `fit`, the audit's errors.

    >>> WeightDecay(Decoupled(0.1), every=50)  # doctest: +SKIP

    Source: hooks of lightning.pytorch.Callback.
    """

    base = "lightning.pytorch", "Callback"
    _waiting: dict[str, Any] | None = None  # a state that was loaded before the rules were attached
    _begun = False

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Attach: the optimizers exist, and their states have not been loaded yet."""
        self._attach(pl_module, trainer.optimizers)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Take over a loaded state, audit, and begin to monitor."""
        if self._waiting is not None:
            super().load_state_dict(self._waiting)
            self._waiting = None
        elif trainer.global_step and not self._begun:
            warn_of_no_state(self.decays)
        self._begun = True
        self._run_audit(pl_module, trainer.optimizers, **_known(trainer))
        self._start_monitors(pl_module, trainer.optimizers)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the monitors."""
        del trainer, pl_module
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the monitors."""
        del trainer, pl_module, exception
        self._close()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """From the checkpoint; rules may not be attached yet."""
        self._waiting = state_dict


def _known(trainer: Any) -> dict[str, Any]:
    """What the trainer knows of the run."""
    known: dict[str, Any] = {"scaler": getattr(trainer.precision_plugin, "scaler", None)}
    steps = trainer.estimated_stepping_batches
    if 0 < steps < float("inf"):
        # max_steps counts the steps of all optimizers, an epoch those of each.
        every = len(trainer.optimizers) if steps == trainer.max_steps else 1
        known["steps"] = int(steps) // max(every, 1)
    batches = trainer.num_training_batches
    if 0 < batches < float("inf"):
        # The last batches of an epoch are a step, however few.
        known["steps_per_epoch"] = math.ceil(batches / trainer.accumulate_grad_batches)
    configs = trainer.lr_scheduler_configs
    # A schedule can be followed from its beginning.
    if "steps" in known and trainer.global_step == 0 and configs:
        usual = all(_can_be_followed(config, known.get("steps_per_epoch"), trainer) for config in configs)
        if usual and len({id(config.scheduler.optimizer) for config in configs}) == len(configs):
            known["schedule"] = [
                {"scheduler": config.scheduler, "interval": config.interval, "frequency": config.frequency}
                for config in configs
            ]
    return known


def _can_be_followed(config: Any, steps_per_epoch: int | None, trainer: Any) -> bool:
    """Whether the scheduler is stepped at equal distances, and not by a metric."""
    if config.reduce_on_plateau or (config.interval == "epoch" and steps_per_epoch is None):
        return False
    if config.interval == "epoch" or config.frequency == 1:
        return True
    # Lightning counts batches for it, anew in each epoch.
    whole = steps_per_epoch is not None and steps_per_epoch % config.frequency == 0
    return whole and trainer.accumulate_grad_batches == 1
