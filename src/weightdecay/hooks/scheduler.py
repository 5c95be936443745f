"""A schedule for the strength, with the interface of torch's learning rate schedulers."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import optim

from weightdecay.arguments import count, function, number
from weightdecay.errors import InputError
from weightdecay.hooks.decay import Decay, attached
from weightdecay.hooks.optimizers import bare_optimizer


class WeightDecayScheduler:
    """Multiply the strength by a function of the step, as torch's LambdaLR does with the learning rate.

        wd_t = wd · factor(t)

    Args:
        target: a `Decay`, or an optimizer whose groups have a `weight_decay` of their own.
        factor: a function of how often `step` was called; a finite number of 0 or more.
        last_epoch: the count to start from, -1 at the beginning, as in torch.

    Convention: call `step` after `optimizer.step()`, once a step or once an epoch; the factor for t = 0 is
    set when the scheduler is made.

    Raises:
        InputError: neither of the two, no strength to multiply, a factor that is negative or not finite.

    >>> import torch
    >>> optimizer = torch.optim.AdamW([torch.zeros(1)], weight_decay=0.1)
    >>> scheduler = WeightDecayScheduler(optimizer, lambda t: 1 - t / 4)
    >>> scheduler.step()
    >>> scheduler.get_last_weight_decay()
    [0.07500000000000001]

    Source: asked for in pytorch issue 22343.
    """

    def __init__(self, target: Any, factor: Callable[[int], float], last_epoch: int = -1) -> None:
        target = bare_optimizer(target) if not isinstance(target, Decay) else target
        if not isinstance(target, Decay | optim.Optimizer):
            raise InputError(
                "nothing to schedule", "target", type(target).__name__, "give a Decay or an optimizer"
            )
        if isinstance(target, Decay) and not any(rule.has_strength for rule in target.rules):
            remedy = "it finds or needs none: there is nothing to schedule"
            raise InputError("the rule has no strength", "target", target.shown, remedy)
        if isinstance(target, optim.Optimizer) and (others := attached(target)):
            raise InputError(
                "a rule is attached to this optimizer and sets its strength",
                "target",
                others[0].shown,
                "give the Decay that attach returned",
            )
        self._target = target
        self._factor = function(factor, "factor", "give a function of the step")
        self.optimizer = target.optimizer if isinstance(target, Decay) else target
        self.last_epoch = count(last_epoch, "last_epoch", least=-1)
        if isinstance(target, optim.Optimizer):
            self._check_bases(target)
        self.step()

    def _check_bases(self, optimizer: optim.Optimizer) -> None:
        if self.last_epoch == -1 and any(group.get("weight_decay") for group in optimizer.param_groups):
            return
        if self.last_epoch >= 0 and all("initial_weight_decay" in group for group in optimizer.param_groups):
            return
        what, remedy = (
            "no group has a weight_decay to multiply",
            "build it with weight_decay=, or give the Decay that attach returned",
        )
        if self.last_epoch >= 0:
            what = "the optimizer does not know the strengths to go on from"
            remedy = "begin with last_epoch=-1, or load the optimizer's state first"
        raise InputError(what, "optimizer", type(optimizer).__name__, remedy)

    def step(self, epoch: int | None = None) -> None:
        """Go one further, or to `epoch`, and set the strength."""
        epoch = self.last_epoch + 1 if epoch is None else count(epoch, "epoch", least=0)
        factor = number(self._factor(epoch), f"factor({epoch})", least=0)
        self.last_epoch = epoch
        if isinstance(self._target, Decay):
            self._target.factor = factor
            return
        for group in self.optimizer.param_groups:
            base = group.setdefault("initial_weight_decay", group.get("weight_decay", 0.0))
            if base:
                group["weight_decay"] = base * factor

    def get_last_weight_decay(self) -> list[float]:
        """The strength of each group now."""
        if isinstance(self._target, Decay):
            return self._target.strengths()
        return [float(group.get("weight_decay", 0.0)) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The count; not the function. The strengths at factor 1 are in the optimizer's groups."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, and set the strength for that count.

        Raises:
            InputError: it is not the state of a scheduler.
        """
        if not isinstance(state_dict, Mapping) or "last_epoch" not in state_dict:
            value = sorted(state_dict) if isinstance(state_dict, Mapping) else type(state_dict).__name__
            raise InputError("not the state of a scheduler", "state_dict", value, "give one of state_dict()")
        self.step(count(state_dict["last_epoch"], "last_epoch", least=0))
