"""A parameter whose rows decay later, but exactly: each catches up with what it missed."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from weightdecay.errors import WeightDecayWarning
from weightdecay.hooks.update import PIECE
from weightdecay.rules import Rule, Step

_LOOK_UPS = (nn.Embedding.forward, nn.EmbeddingBag.forward)


class Rows:
    """The decay that the rows of one parameter have still to make up for.

    A row that was current when the sum S stood at s has missed decays that compose to one, of the rate

        1 - prod_t (1 - rate_t) = 1 - exp(S - s),    S = sum_t log(1 - rate_t)

    It needs nothing but the parameter, so that a model which was pickled half way can still catch up.

    Args:
        w: the parameter.
        rule: a rule that composes.
        state: what the rule keeps for the parameter; the attachment's own dictionary.
    """

    def __init__(self, w: Tensor, rule: Rule, state: dict[str, Tensor]) -> None:
        # Only the rate counts here, and a strength may be a function, which does not pickle.
        self._w, self._rule, self._state = w, replace(rule, weight_decay=0.0), state
        self._plain = (type(rule).decayed, type(rule).decay_) == (Rule.decayed, Rule.decay_)
        self._total: float | Tensor = 0.0
        self._current: Tensor | None = None  # the sum at which each row was current; None: all rows are
        self._handles: list[Any] = []
        self._warned = False

    def watch(self, owners: Iterable[nn.Module]) -> None:
        """Catch up before a module that holds the parameter is used, saved or loaded."""
        for module in owners:
            for hook in module._forward_pre_hooks.values():
                if isinstance(other := getattr(hook, "__self__", None), Rows):
                    other.flush()  # the model was pickled while rows lagged
            read = self._before_look_up if looks_up(module) else self._before_use
            self._handles += [
                module.register_forward_pre_hook(read, with_kwargs=True),
                module.register_state_dict_pre_hook(self._before_use),
                module.register_load_state_dict_pre_hook(self._before_use),
            ]

    def close(self) -> None:
        """Catch up, and take the module's hooks away."""
        self.flush()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @torch.no_grad()
    def advance(self, rate: float | Tensor, rows: Tensor, read: int, name: str) -> None:
        """Let all rows miss a decay, and these catch up; the first `read` have a gradient."""
        if self._current is None:
            self._current = torch.zeros(len(self._w), dtype=torch.float64, device=self._w.device)
        behind = self._follow().index_select(0, rows)
        # Where nobody has to wait for the answer: nearly always these were looked up, and so are current.
        late = behind != self._total if behind.device.type == "cpu" else None
        if late is not None and self._handles and not self._warned and late[:read].any():
            self._warned = True
            _warn_of_reading(name)
        missed = torch.log1p(-rate.double()) if isinstance(rate, Tensor) else math.log1p(-rate)
        self._total = self._total + missed
        if rows.numel() >= len(self._w):
            self.flush()
        elif late is None or late.any() or not self._plain:
            self._catch_up(rows, behind)
        else:
            self._write(rows, self._w.data.index_select(0, rows).mul_(1 - rate))

    @torch.no_grad()
    def catch_up(self, rows: Tensor) -> None:
        """Bring rows up to date; a row may come more than once: then the same is written twice."""
        if self._current is None:
            return
        if rows.numel() >= len(self._w):
            self.flush()
        else:
            self._catch_up(rows, self._follow().index_select(0, rows))

    def _catch_up(self, rows: Tensor, behind: Tensor) -> None:
        # With `data`, autograd does not take it for a change of what a forward pass has saved: rows that
        # were looked up since the last step are current, so they keep their bits.
        values = self._w.data.index_select(0, rows)
        self._decay_(values, behind, lambda state: state.index_select(0, rows))
        self._write(rows, values)

    def _write(self, rows: Tensor, values: Tensor) -> None:
        """Store rows, which are current now."""
        assert self._current is not None
        self._w.data.index_put_((rows,), values)
        self._current.index_fill_(0, rows, self._total)

    @torch.no_grad()
    def flush(self) -> None:
        """Bring all rows up to date. The sum starts again at 0, so that a resumed training has the same."""
        if self._current is None:
            return
        w, current = self._w.data, self._follow()
        size = max(1, PIECE * len(w) // max(1, w.numel()))
        for start in range(0, len(w), size):
            piece = slice(start, start + size)
            self._decay_(w[piece], current[piece], lambda state, piece=piece: state[piece])
        self.reset()

    def reset(self) -> None:
        """Take all rows for current."""
        self._total, self._current = 0.0, None

    def __deepcopy__(self, memo: dict[int, Any]) -> "Rows":
        """Of a copied model: no optimizer of its own will touch the rows, so they catch up at once."""
        twin = Rows(copy.deepcopy(self._w, memo), self._rule, copy.deepcopy(self._state, memo))
        memo[id(self)] = twin
        twin._total, twin._current = self._total, copy.deepcopy(self._current, memo)
        twin.flush()
        return twin

    def _decay_(self, values: Tensor, current: Tensor, of: Callable[[Tensor], Tensor]) -> None:
        """Decay rows by what each has missed."""
        column = -1, *[1] * (values.ndim - 1)
        if self._plain:
            values.mul_(torch.exp(self._total - current).to(values.dtype).view(column))
            return
        rate = torch.expm1(self._total - current).neg_().to(values.dtype).view(column)
        rows = self._w.shape
        state = {key: of(one) if one.shape == rows else one for key, one in self._state.items()}
        self._rule.decay_(values, Step(rate, math.nan, state=state))  # a rule that composes reads the rate

    def _follow(self) -> Tensor:
        """The sums, where the parameter is now; so are the rule's tensors then, and of its type."""
        w, current = self._w, self._current
        assert current is not None
        if current.device != w.device:
            current = self._current = current.to(w.device)
        for key, tensor in self._state.items():
            if (tensor.dtype, tensor.device) != (w.dtype, w.device):
                self._state[key] = tensor.to(w)
        return current

    @torch.compiler.disable(reason="which rows have to catch up is not a matter of the graph")
    def _before_look_up(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        if self._current is not None:
            rows = args[0] if args else kwargs["input"]
            with torch.inference_mode(False):  # else what is made here could not be changed outside
                self.catch_up(rows.reshape(-1).long())

    @torch.compiler.disable(reason="as above")
    def _before_use(self, module: nn.Module, *rest: Any) -> None:
        del module, rest
        if self._current is not None:
            with torch.inference_mode(False):
                self.flush()


def _warn_of_reading(name: str) -> None:
    warnings.warn(
        f"rows of {name} were read by other hands than the module that holds it, before they had caught up "
        "with their decay: call that module, or flush() the decay before each forward pass",
        WeightDecayWarning,
        stacklevel=2,
    )


def owners(model: nn.Module, w: Tensor) -> list[nn.Module]:
    """The modules that hold a parameter."""
    return [one for one in model.modules() if any(own is w for own in one._parameters.values())]


def looks_up(module: nn.Module) -> bool:
    """Whether a module reads the rows that its input names, and no others."""
    return type(module).forward in _LOOK_UPS
