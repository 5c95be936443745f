"""What rules do to parameters around one step: before it, in place of gradients, and after it."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

from torch import Tensor, optim

from weightdecay.hooks import apply
from weightdecay.hooks.rounding import Rounding
from weightdecay.hooks.sparse import Sparse
from weightdecay.hooks.telling import Work
from weightdecay.hooks.update import readable
from weightdecay.hooks.views import seen
from weightdecay.rules import Rule, Step


class Acting:
    """The rules at one step.

    Args:
        optimizer: the optimizer.
        rules: the rules.
        compiled: let torch.compile write their kernels.
        sparse: what is done with sparse gradients.
        rounding: of decayed weights, at random; None is to the nearest.
        late: decay after the step, by what the weights were when it began.

    Attributes:
        acted: whether this step's decay has been done, as far as it comes before the step.
    """

    def __init__(
        self,
        optimizer: optim.Optimizer,
        rules: tuple[Rule, ...],
        compiled: bool,
        sparse: Sparse,
        rounding: Rounding | None,
        late: bool = False,
    ) -> None:
        self._optimizer, self._rules, self._sparse, self._rounding = optimizer, rules, sparse, rounding
        self._late = late
        self._kept: dict[Tensor, Tensor] = {}  # the weights when the step began, where decay is late
        self._passes = [apply.Pass(rule, compiled, rounding) for rule in rules]
        self._memory = apply.Memory()
        self._gradients: list[tuple[Tensor, Tensor, Tensor]] = []  # the user's, while a penalty is added
        # Rules that wait for the step, and the weights before it, where u is not readable.
        self._waiting: dict[Tensor, tuple[Tensor, list[tuple[Rule, Step]]]] = {}
        self._afterwards: list[Work] = []  # of rules that act after the step
        self.acted = False

    def begin(self) -> None:
        """A step begins; one before it may have failed half way."""
        self.drop()
        self.acted = False

    def keep(self, parameters: Iterable[Tensor]) -> None:
        """Copy the weights before the step moves them, where decay is late: a closure may find them moved."""
        if not all(rule.coupled for rule in self._rules):
            self._kept = {w: self._memory.whole(w, "before").copy_(w) for w in parameters}

    def act(self, work: Sequence[Work]) -> Tensor | float:
        """Decay once a step; add penalties whenever the loss was evaluated, and return their sum."""
        penalty: Tensor | float = 0.0
        if not self.acted:
            self._afterwards = [self._started(one) for one in work if self._rules[one[0]].after]
        for r, own in itertools.groupby(work, key=lambda one: one[0]):
            rule = self._rules[r]
            if rule.coupled or not (self.acted or rule.after):
                penalty = penalty + self._act_by(r, [_with_partners(one) for one in own])
        self.acted = True
        return penalty

    def finish(self) -> None:
        """Do what comes after the step."""
        for w, (before, rules) in self._waiting.items():
            apply.decay_after(w, before, rules, self._memory, self._rounding)
        for r, _, live in self._afterwards:
            apply.decay(self._rules[r], self._passes[r], live)

    def give_back_gradients(self) -> None:
        """Put the user's gradients back in the place of those with a penalty."""
        for parameter, gradient, with_penalty in self._gradients:
            if parameter.grad is with_penalty:  # else the user has made a new one since
                parameter.grad = gradient
        self._gradients.clear()

    def drop(self) -> None:
        """Forget what belongs to one step."""
        self.give_back_gradients()
        self._waiting.clear()
        self._kept.clear()
        self._afterwards.clear()

    def end(self) -> None:
        """Forget everything, memory included."""
        self.drop()
        self._memory = apply.Memory()

    def _started(self, work: Work) -> Work:
        """The same work, told the weights as they are now, before anything has acted."""
        r, group, live = work
        kept = [(w, self._memory.whole(w, "start").copy_(self._kept.get(w, w)), step) for w, step in live]
        return r, group, [(w, replace(step, before=before)) for w, before, step in kept]

    def _act_by(self, r: int, work: Sequence[Work]) -> Tensor | float:
        """Decay by one rule, as far as it is done before the step; return its penalty."""
        rule, once = self._rules[r], self._passes[r]
        penalty: Tensor | float = 0.0
        for _, group, everything in work:
            live, penalised = self._sparse.take(rule, group, everything)
            self._gradients += penalised
            if rule.coupled:
                if isinstance(self._optimizer, optim.LBFGS):
                    penalty = penalty + sum(rule.penalty(seen(w), step) for w, step in live)
                self._gradients += apply.add_penalty(rule, self._optimizer, group, live, self._memory)
            elif not (rule.needs_update or self._late):
                apply.decay(rule, once, live)
            elif not self._late and readable(self._optimizer):
                apply.decay_along(rule, once, self._optimizer, group, live, self._memory)
            else:
                for w, step in live:
                    if w not in self._waiting:
                        before = self._kept.get(w)
                        if before is None:
                            before = self._memory.whole(w, "before").copy_(w)
                        self._waiting[w] = before, []
                    self._waiting[w][1].append((rule, step))
        return penalty


def _with_partners(work: Work) -> Work:
    """The same work with copies of the partners: they may decay themselves before they are looked at."""
    r, group, live = work
    if all(step.partner is None for _, step in live):
        return work
    copies = [None if step.partner is None else step.partner.detach().clone() for _, step in live]
    return r, group, [(w, replace(step, partner=one)) for (w, step), one in zip(live, copies, strict=True)]
