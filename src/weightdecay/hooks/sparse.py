"""Decay of parameters whose gradient is sparse: the rows that a step touches, at the cost of these."""

import copy
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch._compile import _disable_dynamo

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.hooks.apply import PIECE, Batch
from weightdecay.hooks.optimizers import facts
from weightdecay.hooks.plan import States, Target
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
        self._plain = rule.plain
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
            warnings.warn(
                f"rows of {name} were read by other hands than the module that holds it, before they had "
                "caught up with their decay: call that module, or flush() the decay before each forward pass",
                WeightDecayWarning,
                stacklevel=2,
            )
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
        state = {key: of(tensor) if tensor.shape == rows else tensor for key, tensor in self._state.items()}
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

    # Which rows have to catch up is not a matter of the graph.
    @_disable_dynamo
    def _before_look_up(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del module
        if self._current is not None:
            rows = args[0] if args else kwargs["input"]
            with torch.inference_mode(False):  # else what is made here could not be changed outside
                self.catch_up(rows.reshape(-1).long())

    @_disable_dynamo
    def _before_use(self, module: nn.Module, *rest: Any) -> None:
        del module, rest
        if self._current is not None:
            with torch.inference_mode(False):
                self.flush()


def owners(model: nn.Module, w: Tensor) -> list[nn.Module]:
    """The modules that hold a parameter."""
    return [module for module in model.modules() if any(own is w for own in module._parameters.values())]


def looks_up(module: nn.Module) -> bool:
    """Whether a module reads the rows that its input names, and no others."""
    return type(module).forward in _LOOK_UPS


# A parameter, the gradient that was there, the one with the penalty's share that is there now.
Penalised = tuple[Tensor, Tensor, Tensor]
_TOUCHED = 'attach with sparse="touched": the rule acts on the rows in the gradient alone'
_DENSE = "build the embedding with sparse=False, or leave the parameter out with on="


class Sparse:
    """What an attached rule does with sparse gradients.

    Args:
        how: "lazy" or "touched".
        optimizer: the optimizer.
        rules: the rules.
        model: where the parameters are used; None is unknown.
        at_random: weights are rounded at random.

    Raises:
        InputError: no such way; a rule that does not go with SparseAdam.
    """

    def __init__(
        self,
        how: str,
        optimizer: optim.Optimizer,
        rules: tuple[Rule, ...],
        model: nn.Module | None,
        at_random: bool,
    ) -> None:
        self.how = how
        self._optimizer, self._rules, self._model = optimizer, rules, model
        if how not in ("lazy", "touched"):
            raise InputError(
                "no such way to decay by sparse gradients", "sparse", repr(how), "use lazy or touched"
            )
        self.refused = refusal(how, optimizer, rules, at_random)
        if self.refused and isinstance(optimizer, optim.SparseAdam):  # other gradients than its may be dense
            what, remedy = self.refused
            raise InputError(what, "optimizer", "SparseAdam, whose gradients are sparse", remedy)
        self._takes_sparse = facts(optimizer, inherited=True).sparse
        self._rows: dict[Tensor, Rows] = {}
        self._names: dict[Tensor, str] = {}

    @property
    def lazy(self) -> tuple[str, ...]:
        """The names of the parameters whose rows catch up."""
        return tuple(self._names[w] for w in self._rows if w in self._names)

    def flush(self) -> None:
        """Let every row catch up."""
        for rows in self._rows.values():
            rows.flush()

    def reset(self) -> None:
        """Take every row for current, as in a checkpoint."""
        for rows in self._rows.values():
            rows.reset()

    def follow(self, targets: Sequence[Target], states: States) -> None:
        """Watch the tables that will have sparse gradients, before a model is compiled; forget all others."""
        if self._rows:
            for w in set(self._rows) - {target.parameter for target in targets}:
                self._rows.pop(w).close()
        if self._model is None or self.how != "lazy" or self.refused:
            return
        tables: set[Any] = set()
        for module in self._model.modules():
            if looks_up(module) and module.sparse:
                tables.add(module._parameters["weight"])
        for target in targets:
            if target.parameter in tables:
                self._of(target.parameter, self._rules[0], states.of(target, 0))
                if all(looks_up(module) for module in owners(self._model, target.parameter)):
                    self._names[target.parameter] = target.name

    def close(self) -> None:
        """Let every row catch up, and watch no longer."""
        while self._rows:
            self._rows.popitem()[1].close()

    def check(self, target: Target, gradient: Tensor, native: bool) -> None:
        """Refuse a sparse gradient that the rules cannot decay by; most optimizers do so by themselves.

        Raises:
            InputError: see `refusal`.
        """
        if native and not self._takes_sparse:
            return
        self._names[target.parameter] = target.name
        if self.refused:
            what, remedy = self.refused
            rows = f"sparse gradient, {gradient._nnz()} of {gradient.shape[0]} rows"
            raise InputError(what, target.name, rows, remedy)

    def take(self, rule: Rule, group: Mapping[str, Any], batch: Batch) -> tuple[Batch, list[Penalised]]:
        """Do the parameters whose gradient is sparse.

        Returns:
            Those that are left, to be decayed whole; the gradients that a coupled rule replaced.
        """
        if not self._rows and not self._names:
            return batch, []
        left: list[int] = []
        penalised: list[Penalised] = []
        for i, (w, step) in enumerate(batch.each()):
            gradient = w.grad
            assert gradient is not None
            moved = moved_rows(self._optimizer, w) if gradient.is_sparse else None
            if self.how == "touched" and gradient.is_sparse:
                if rule.coupled:
                    penalised.append(_penalise(rule, group, w, gradient, step))
                else:
                    _decay_rows(rule, w, gradient._indices()[0], step)
            elif moved is not None:
                assert isinstance(step.state, dict)
                read = gradient._indices().shape[1]
                self._of(w, rule, step.state).advance(step.rate, moved, read, self._names[w])
            else:
                if w in self._rows:
                    self._rows[w].flush()
                left.append(i)
        return batch.some(left), penalised

    def _of(self, w: Tensor, rule: Rule, state: dict[str, Tensor]) -> Rows:
        """The rows of a parameter, watched from now on."""
        if w not in self._rows:
            held = [] if self._model is None else owners(self._model, w)
            self._rows[w] = Rows(w, rule, state)
            self._rows[w].watch(held)
            if not held:
                warnings.warn(
                    f"which module uses {self._names[w]} is not known, and its gradient is sparse: rows "
                    "catch up in the step, after the forward pass has read them; give model= to attach, or "
                    "call flush() on the decay before weights are read or saved",
                    WeightDecayWarning,
                    stacklevel=2,
                )
        return self._rows[w]


def moved_rows(optimizer: optim.Optimizer, w: Tensor) -> Tensor | None:
    """The rows that the coming step moves, some of them more than once; None if these are all, or not known.

    Exact types, since a subclass may have changed its step.
    """
    gradient = w.grad
    assert gradient is not None
    rows = gradient._indices()[0]
    if type(optimizer) in (optim.SparseAdam, optim.Adagrad):
        return rows
    if type(optimizer) is not optim.SGD:
        return None
    momentum = optimizer.state.get(w, {}).get("momentum_buffer")
    if momentum is None:
        return rows
    return torch.cat([rows, momentum._indices()[0]]) if momentum.is_sparse else None


def refusal(
    how: str, optimizer: optim.Optimizer, rules: tuple[Rule, ...], at_random: bool
) -> tuple[str, str] | None:
    """Why a sparse gradient is not decayed by, and what to do instead; None if it is."""
    name = type(optimizer).__name__
    if type(optimizer).__module__.startswith("torch.optim") and not facts(optimizer, inherited=True).sparse:
        return f"{name} is not made for sparse gradients", f"use SGD, Adagrad or SparseAdam; or {_DENSE}"
    if at_random:
        return "rows of a sparse gradient are not rounded at random", f'use rounding="nearest"; or {_DENSE}'
    for rule in rules:
        kind = type(rule).__name__
        if rule.needs_second_moment:
            return f"{kind} looks at the size of all gradients, which {name} does not keep", _DENSE
        if rule.needs_update or rule.after:
            return f"{kind} looks at the update, and rows without gradient have none to look at", _DENSE
        if not rule.elementwise:
            return (
                f"{kind} looks at whole weights, and a sparse gradient exists so that nobody has to",
                _DENSE,
            )
        if how == "lazy" and rule.coupled:
            return (
                f"{kind} adds to the gradient of every row at every step, and no row can catch up",
                _TOUCHED,
            )
        if how == "lazy" and not rule.composes:
            return f"decays by {kind} do not add up to one, so that no row can catch up", _TOUCHED
    if how == "lazy" and len(rules) > 1:
        return "decays by a chain do not add up to one, so that no row can catch up", _TOUCHED
    return None


def _decay_rows(rule: Rule, w: Tensor, rows: Tensor, step: Step) -> None:
    """Decay the rows in a gradient once; where one comes twice, the same is written twice."""
    states = {key: state for key, state in step.state.items() if state.shape == w.shape}
    of_rows = {key: state.index_select(0, rows) for key, state in states.items()}
    values = w.detach().index_select(0, rows)
    rule.decay_(values, replace(step, state={**step.state, **of_rows}))
    w.detach().index_copy_(0, rows, values)
    for key, state in states.items():
        state.index_copy_(0, rows, of_rows[key])


def _penalise(rule: Rule, group: Mapping[str, Any], w: Tensor, gradient: Tensor, step: Step) -> Penalised:
    """Put the gradient with the penalty of its own rows in place of a gradient."""
    sign = -1.0 if group.get("maximize") else 1.0
    merged = gradient.coalesce()
    rows = merged._indices()[0]
    of_rows = {
        k: state.index_select(0, rows) if state.shape == w.shape else state for k, state in step.state.items()
    }
    step = replace(step, weight_decay=step.weight_decay * sign, state=of_rows)
    values = rule.gradient(merged._values(), w.detach().index_select(0, rows), step)
    penalised = torch.sparse_coo_tensor(
        merged._indices(), values, w.shape, is_coalesced=True, check_invariants=False
    )
    w.grad = penalised
    return w, gradient, penalised
