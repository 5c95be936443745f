"""A schedule for the strength, with the interface of torch's learning rate schedulers."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import optim

from weightdecay.errors import InputError
from weightdecay.hooks.decay import Decay, attached
from weightdecay.units.numbers import count, number


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

    def __init__(
        self, target: Decay | optim.Optimizer, factor: Callable[[int], float], last_epoch: int = -1
    ) -> None:
        if not isinstance(target, Decay | optim.Optimizer):
            raise InputError(
                "nothing to schedule", "target", type(target).__name__, "give a Decay or an optimizer"
            )
        if isinstance(target, optim.Optimizer) and (others := attached(target)):
            raise InputError(
                "a rule is attached to this optimizer and sets its strength",
                "target",
                others[0].shown,
                "give the Decay that attach returned",
            )
        if not callable(factor):
            raise InputError("not a function", "factor", repr(factor), "give a function of the step")
        self._target, self._factor = target, factor
        self.optimizer = target.optimizer if isinstance(target, Decay) else target
        self.base_weight_decays = [] if isinstance(target, Decay) else self._bases(last_epoch)
        self.last_epoch = count(last_epoch, "last_epoch", least=-1)
        self.step()

    def _bases(self, last_epoch: int) -> list[float]:
        groups = self.optimizer.param_groups
        if not any(group.get("weight_decay") for group in groups) and last_epoch == -1:
            raise InputError(
                "no group has a weight_decay to multiply",
                "optimizer",
                type(self.optimizer).__name__,
                "build it with weight_decay=, or give the Decay that attach returned",
            )
        return [
            float(group.setdefault("initial_weight_decay", group.get("weight_decay", 0.0)))
            for group in groups
        ]

    def step(self) -> None:
        """Go one further and set the strength."""
        epoch = self.last_epoch + 1
        factor = number(self._factor(epoch), f"factor({epoch})", least=0)
        self.last_epoch = epoch
        self._set(factor)

    def _set(self, factor: float) -> None:
        if isinstance(self._target, Decay):
            self._target.factor = factor
            return
        for group, base in zip(self.optimizer.param_groups, self.base_weight_decays, strict=True):
            if base or group.get("weight_decay"):
                group["weight_decay"] = base * factor

    def get_last_weight_decay(self) -> list[float]:
        """The strength of each group now; of a `Decay` the factor of each group."""
        if isinstance(self._target, Decay):
            return [self._target.factor for _ in self.optimizer.param_groups]
        return [float(group.get("weight_decay", 0.0)) for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The count and the strengths at factor 1; not the function."""
        return {"last_epoch": self.last_epoch, "base_weight_decays": list(self.base_weight_decays)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave, and set the strength for that count.

        Raises:
            InputError: the state of a scheduler of another optimizer, or none.
        """
        bases = state_dict.get("base_weight_decays")
        if "last_epoch" not in state_dict or bases is None or len(bases) != len(self.base_weight_decays):
            raise InputError(
                "not the state of this scheduler",
                "state_dict",
                sorted(state_dict),
                f"give one of {len(self.base_weight_decays)} groups",
            )
        self.last_epoch, self.base_weight_decays = int(state_dict["last_epoch"]), list(bases)
        self._set(number(self._factor(self.last_epoch), f"factor({self.last_epoch})", least=0))
