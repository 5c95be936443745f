"""Decay of parameters whose gradient is sparse: the rows that a step touches, at the cost of these."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn, optim

from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.hooks.apply import Live
from weightdecay.hooks.plan import Target
from weightdecay.hooks.rows import Rows, looks_up, owners
from weightdecay.hooks.states import States
from weightdecay.rules import Rule, Step

# A parameter, the gradient that was there, the one with the penalty's share that is there now.
Penalised = tuple[Tensor, Tensor, Tensor]
_TAKES_SPARSE = (optim.SGD, optim.Adagrad, optim.SparseAdam)
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
        self.refused = refusal(how, optimizer, rules, at_random)
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
        kept = {target.parameter for target in targets}
        for w in [w for w in self._rows if w not in kept]:
            self._rows.pop(w).close()
        if self._model is None or self.how != "lazy" or self.refused:
            return
        tables = {one._parameters["weight"] for one in self._model.modules() if looks_up(one) and one.sparse}
        for target in targets:
            if target.parameter in tables:
                self._of(target.parameter, self._rules[0], states.of(target, 0))
                if all(looks_up(one) for one in owners(self._model, target.parameter)):
                    self._names[target.parameter] = target.name

    def close(self) -> None:
        """Let every row catch up, and watch no longer."""
        while self._rows:
            self._rows.popitem()[1].close()

    def check(self, live: Iterable[Target], native: bool) -> None:
        """Refuse sparse gradients that the rules cannot decay by; most optimizers do so by themselves.

        Raises:
            InputError: see `refusal`.
        """
        if native and not isinstance(self._optimizer, _TAKES_SPARSE):
            return
        for target in live:
            gradient = target.parameter.grad
            if gradient is None or not gradient.is_sparse:
                continue
            self._names[target.parameter] = target.name
            if self.refused:
                what, remedy = self.refused
                found = f"sparse gradient, {gradient._nnz()} of {gradient.shape[0]} rows"
                raise InputError(what, target.name, found, remedy)

    def take(
        self, rule: Rule, group: Mapping[str, Any], live: Sequence[Live]
    ) -> tuple[list[Live], list[Penalised]]:
        """Do the parameters whose gradient is sparse.

        Returns:
            Those that are left, to be decayed whole; the gradients that a coupled rule replaced.
        """
        if not self._rows and not self._names:
            return list(live), []
        left: list[Live] = []
        penalised: list[Penalised] = []
        for w, step in live:
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
                left.append((w, step))
        return left, penalised

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


def check_sparse(how: str, optimizer: optim.Optimizer, rules: tuple[Rule, ...], at_random: bool) -> None:
    """Refuse what cannot be, before anything is attached; other gradients than SparseAdam's may be dense.

    Raises:
        InputError: no such way; a rule that does not go with SparseAdam.
    """
    if how not in ("lazy", "touched"):
        raise InputError(
            "no such way to decay by sparse gradients", "sparse", repr(how), "use lazy or touched"
        )
    if isinstance(optimizer, optim.SparseAdam) and (reason := refusal(how, optimizer, rules, at_random)):
        raise InputError(reason[0], "optimizer", "SparseAdam, whose gradients are sparse", reason[1])


def refusal(
    how: str, optimizer: optim.Optimizer, rules: tuple[Rule, ...], at_random: bool
) -> tuple[str, str] | None:
    """Why a sparse gradient is not decayed by, and what to do instead; None if it is."""
    name = type(optimizer).__name__
    if type(optimizer).__module__.startswith("torch.optim") and not isinstance(optimizer, _TAKES_SPARSE):
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
    told = {key: state.index_select(0, rows) for key, state in states.items()}
    values = w.detach().index_select(0, rows)
    rule.decay_(values, replace(step, state={**step.state, **told}))
    w.detach().index_copy_(0, rows, values)
    for key, state in states.items():
        state.index_copy_(0, rows, told[key])


def _penalise(rule: Rule, group: Mapping[str, Any], w: Tensor, gradient: Tensor, step: Step) -> Penalised:
    """Put the gradient with the penalty of its own rows in place of a gradient."""
    sign = -1.0 if group.get("maximize") else 1.0
    merged = gradient.coalesce()
    rows = merged._indices()[0]
    told = {
        k: state.index_select(0, rows) if state.shape == w.shape else state for k, state in step.state.items()
    }
    step = replace(step, weight_decay=step.weight_decay * sign, state=told)
    values = rule.gradient(merged._values(), w.detach().index_select(0, rows), step)
    penalised = torch.sparse_coo_tensor(
        merged._indices(), values, w.shape, is_coalesced=True, check_invariants=False
    )
    w.grad = penalised
    return w, gradient, penalised
