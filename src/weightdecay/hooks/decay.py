"""An attached rule: its hooks around an optimizer's step, its state, and what it prints."""

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, optim
from torch._compile import _disable_dynamo

from weightdecay.arguments import count, number
from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.groups import Assignment
from weightdecay.hooks.optimizers import Native, check_capture, check_native, inside
from weightdecay.hooks.plan import Plan, Planner, States, Target, plain, signature
from weightdecay.hooks.rounding import Happened, Rounding, one_step, saved_rounding
from weightdecay.hooks.sparse import Sparse
from weightdecay.hooks.step import OpenStep, Stepper, makes_state
from weightdecay.rules import Chain, Rule, rules_of
from weightdecay.rules.strength import GroupStrength

# The methods by which sharpness-aware optimizers are driven without a closure.
PHASES = ("first_step", "second_step")


class Decay:
    """A rule attached to an optimizer: `attach` makes it, `optimizer.step()` runs it, `detach` ends it.

    Policy: a parameter without gradient (`grad is None`) does not decay, as in torch's own optimizers; one
    whose gradient is zero does, unless it is frozen. A step that a gradient scaler skips does not decay.
    Gradients are the user's own again once the step is over.

    Attributes:
        optimizer: the optimizer.
        rule: the rule, or the chain of rules.
        rules: the rules, in the order they were given.
        steps: how many steps have been taken; skipped ones are not counted.
        plan: which parameters decay, how strongly, and whether the optimizer or a hook does it.
        late: whether decay is done after the step, as if it had been done before: with a closure, a change
            made earlier would not survive it (sharpness-aware optimizers restore the weights).
        factor: times the strength; what `WeightDecayScheduler` sets.
    """

    def __init__(
        self,
        optimizer: optim.Optimizer,
        rule: Rule | Chain,
        plan: Plan,
        planner: Planner,
        compiled: bool,
        sparse: Sparse,
        rounding: Rounding | None = None,
        late: bool = False,
    ) -> None:
        self.optimizer, self.late = optimizer, late
        self.steps, self.factor = 0, 1.0
        self.rule, self.plan, self._planner = rule, plan, planner
        self.rules = rules = rules_of(rule)
        self._signature = None  # the first step plans again: see `_follow`
        self._sparse, self._rounding, self._skipped = sparse, rounding, False
        self._states = States(rules)
        self._states.add(plan.all_targets)
        self._sparse.follow(plan.all_targets, self._states)
        self._native, self._step = Native(optimizer), OpenStep()
        self._stepper = Stepper(optimizer, rules, self._states, compiled, sparse, rounding, late)
        self._lower()
        self._handles: list[Any] = []
        # One inside may be stepped without the one around it, as by the two phases of sharpness-aware ones.
        for hooked in (optimizer, *inside(optimizer)):
            if hasattr(hooked, "_optimizer_step_pre_hooks"):
                self._handles.append(hooked.register_step_pre_hook(self._before))
                self._handles.append(hooked.register_step_post_hook(self._after))
        self._phases: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {}
        first, second = getattr(optimizer, PHASES[0], None), getattr(optimizer, PHASES[1], None)
        if callable(first) and callable(second) and len(self._handles) == 2:  # else one inside is stepped
            self._watch_phases(first, second)
        vars(optimizer)["__reduce_ex__"] = self._reduced
        # Rules on other optimizers that decay one of these parameters, how far they are, and its name.
        self._others: list[tuple[weakref.ref[Decay], int, str]] = []
        for other in _ALL:
            if other.optimizer is not optimizer and (shared := other.shared_with(plan)):
                self._others.append((weakref.ref(other), other.steps, shared.name))
        _ALL.add(self)

    @property
    def shown(self) -> str:
        """The rule as it was written."""
        return self.rule.shown

    def shared_with(self, plan: Plan) -> Target | None:
        """Return the first parameter that decays by this and by another plan; None for none."""
        theirs = {id(target.parameter) for target in plan.all_targets}
        return next((own for own in self.plan.all_targets if id(own.parameter) in theirs), None)

    def _warn_of_others(self) -> None:
        """Warn, once, where another optimizer has been stepped since and decays the same parameter."""
        for other, steps, name in self._others:
            decay = other()
            if decay is not None and decay._handles and decay.steps > steps:
                self._others = []
                warnings.warn(
                    f"{name} decays twice: {decay.shown} on {type(decay.optimizer).__name__}, another "
                    "optimizer, decays it too, in its own steps: detach one of them",
                    WeightDecayWarning,
                    stacklevel=2,
                )
                return

    def _watch_phases(self, first: Callable[..., Any], second: Callable[..., Any]) -> None:
        """Take `first_step` and `second_step` for one step, where no optimizer inside is stepped by them."""
        optimizer: Any = self.optimizer

        def first_step(*args: Any, **kwargs: Any) -> Any:
            if self._handles and not self._step.runs():
                self._before(optimizer, (optimizer,), {}, hooked=False)
            return first(*args, **kwargs)

        def second_step(*args: Any, **kwargs: Any) -> Any:
            if not self._handles or not self._step.open or self._step.runs():
                return second(*args, **kwargs)
            with torch.no_grad():
                self._act()  # the penalty of the second gradient
            result = second(*args, **kwargs)
            self._after(optimizer, (optimizer,), {})
            return result

        optimizer.first_step, optimizer.second_step = first_step, second_step
        self._phases = {"first_step": (first_step, first), "second_step": (second_step, second)}

    def detach(self) -> None:
        """End the decay: take the hooks away and put the optimizer's own options back."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        own = vars(self.optimizer)
        for name, (wrapper, wrapped) in self._phases.items():
            if own.get(name) is wrapper:  # else another rule was attached since, and calls it
                own.pop(name)
                if getattr(self.optimizer, name) != wrapped:
                    own[name] = wrapped
        own.pop("__reduce_ex__", None)
        if others := attached(self.optimizer):
            own["__reduce_ex__"] = others[-1]._reduced
        _ALL.discard(self)
        self._stepper.end()
        self._native.put_back()
        self._sparse.close()

    def _reduced(self, protocol: Any) -> Any:
        """What a copy or a pickle of the optimizer is made of: it has no hooks, and no option of the rule."""
        kind = type(self.optimizer)
        warnings.warn(
            f"a copied or pickled {kind.__name__} does not decay by {self.shown}, which was attached to it: "
            "attach the rule to the copy",
            WeightDecayWarning,
            stacklevel=3,
        )
        parts: Any = kind.__reduce_ex__(self.optimizer, protocol)
        state = parts[2]
        if isinstance(state, dict) and "param_groups" in state:
            groups = state["param_groups"]
            for decay in attached(self.optimizer):
                groups = decay._native.without(groups)
            state = {**state, "param_groups": groups}
            state.pop("__reduce_ex__", None)
        return (*parts[:2], state, *parts[3:])

    def flush(self) -> None:
        """Let every row that waits for its decay catch up: before weights are read or written by other hands.

        Rows wait where gradients are sparse (`attach(sparse="lazy")`). State dicts and `detach` do it by
        themselves.
        """
        self._sparse.flush()

    def state_dict(self) -> dict[str, Any]:
        """What is needed to go on as if never stopped: rule, step, factor, and tensors by parameter name.

        Plain values and tensors only: it survives `torch.save` and `torch.load(weights_only=True)`. Rows that
        wait for their decay catch up, so that the weights saved with it are current.
        """
        self.flush()
        self._follow()
        return {
            # A key of its own: a distributed checkpoint of another rule is refused before anything is loaded.
            "stamp": {self.shown: True},
            "rule": self.shown,
            "optimizer": type(self.optimizer).__name__,
            "steps": self.steps,
            "factor": self.factor,
            "parameters": self._states.to_dict(self.plan.all_targets),
            "rounding": None if self._rounding is None else self._rounding.state(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave; nothing is changed if it does not fit.

        Raises:
            InputError: the state of another rule, of other parameters or shapes, or no such state at all.
        """
        keys = {"rule", "optimizer", "steps", "factor", "parameters"}
        if not isinstance(state_dict, Mapping) or not keys <= set(state_dict):
            raise InputError(
                "not the state of a decay", "state_dict", type(state_dict).__name__, "give Decay.state_dict()"
            )
        own = {"rule": self.shown, "optimizer": type(self.optimizer).__name__}
        for what, mine in own.items():
            if state_dict[what] != mine:
                raise InputError(
                    f"the state belongs to another {what}",
                    "state_dict",
                    state_dict[what],
                    f"here it is {mine}: attach the same, or go on without the state",
                )
        steps = count(state_dict["steps"], "steps", least=0)
        factor = number(state_dict["factor"], "factor", least=0)
        rounding = saved_rounding(state_dict, self._rounding)
        self._follow()
        self._states.check(state_dict["parameters"], self.plan.all_targets)
        if self._rounding is not None:
            self._rounding.load(rounding)
        self._states.load(state_dict["parameters"], self.plan.all_targets)
        self._sparse.reset()
        self.steps, self.factor = steps, factor

    def strengths(self) -> list[float]:
        """The strength of each parameter group now, of a chain its first rule's that has one.

        It is 0 where nothing decays, and NaN where no rule has a strength.
        """
        first = next((r for r, rule in enumerate(self.rules) if rule.has_strength), None)
        if first is None:
            return [float("nan") if targets else 0.0 for targets in self.plan.targets]
        return [
            0.0 if strength is None else plain(strength.at(self.steps)) * self.factor
            for strength in self.plan.strengths[first]
        ]

    @property
    def sparse(self) -> str | None:
        """How it decays by sparse gradients: "lazy", "touched", or None where they are refused."""
        return self._sparse.how if self._sparse.refused is None else None

    @property
    def rounding(self) -> str:
        """How decayed weights are rounded: "nearest" or "stochastic"."""
        return "nearest" if self._rounding is None else "stochastic"

    def happened(self) -> Happened:
        """What the decay is to remove and what it removes, once weights are rounded.

        With `rounding="stochastic"`, of all steps so far. With "nearest" nothing is counted in training: it
        is what one step does to copies of the weights as they are now, by rules that multiply every weight
        by 1 - rate. Of sharded parameters, the shards of this process.

        Raises:
            InputError: weights are rounded to the nearest, and a rule does not multiply them.
        """
        if self._rounding is not None:
            return self._rounding.happened()
        return one_step(self.optimizer, self.rules, self.plan, self.steps, self.factor)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(
            "a decay cannot be copied or pickled: its hooks would not come along",
            "Decay",
            self.shown,
            "attach the rule to the copy, and load state_dict()",
        )

    def __repr__(self) -> str:
        state = "" if self._handles else ", detached"
        title = f"Decay({self.shown}) on {type(self.optimizer).__name__}{state}"
        if self._rounding is not None:
            done = f", {self._rounding.happened().ratio:.2%} of the decay happened" if self.steps else ""
            title += f", rounded at random{done}"
        if self._sparse.lazy:
            title += f", rows of {', '.join(self._sparse.lazy)} when touched"
        return described(title, self.rules, self.plan, self.optimizer, self.steps, self.factor, self.late)

    # Strengths change each step, and each would be a graph of its own. torch.compiler.disable would load the
    # compiler, a second, with the package; this one loads it when the method is first called.
    @_disable_dynamo
    @torch.no_grad()
    def _before(
        self, optimizer: optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any], hooked: bool = True
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if not self._step.begins(hooked):
            return None
        try:
            self._stepper.drop()  # the step before may have failed half way
            # Follow what happened to the optimizer since the last step: new parameters, loaded options.
            self._follow()
            self._native.check()
            self._lower()
            check_native(self.optimizer, leave_out=lowered(self.optimizer))
            if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
                check_capture(self.rules, by_hooks=self.plan.by_hooks)
                return None
            found_inf = getattr(optimizer, "found_inf", None)  # a gradient scaler tells a fused optimizer so
            self._skipped = (found_inf is not None and bool(found_inf.item())) or makes_state(optimizer)
            if self.late:
                for i, targets in enumerate(self.plan.targets):
                    if i not in self.plan.native:
                        self._stepper.keep(targets)
            closure: Any = args[1] if len(args) > 1 else kwargs.get("closure")
            if not callable(closure):
                self._act()
                return None
        except BaseException:
            self._step.fails()
            raise

        # The closure makes the gradient, from weights that must not have decayed yet: it goes first.
        def evaluate(*args: Any, **kwargs: Any) -> Any:
            try:
                self._stepper.give_back_gradients()
                loss: Any = closure(*args, **kwargs)
                with torch.no_grad():
                    penalty = self._act()
            except BaseException:
                self._step.fails()
                raise
            # A line search compares losses: the loss has to be the one the gradient belongs to.
            return loss + penalty if isinstance(self.optimizer, optim.LBFGS) else loss

        if len(args) > 1:
            return (args[0], evaluate, *args[2:]), kwargs
        return args, {**kwargs, "closure": evaluate}

    @_disable_dynamo
    @torch.no_grad()
    def _after(self, optimizer: optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        del optimizer, args, kwargs
        if not self._step.ends():
            return
        self._stepper.give_back_gradients()
        if not self._skipped:
            if not self._stepper.acted and self.late:
                self._act()  # some evaluate their closure in some steps only
            if not self._stepper.acted and self.plan.by_hooks:
                raise InputError(
                    "the optimizer did not evaluate its closure, so nothing decayed",
                    "closure",
                    type(self.optimizer).__name__,
                    "make the gradients first and call step() without one",
                )
            self._stepper.finish()
            self.steps += 1
            if self._others:
                self._warn_of_others()
        self._stepper.drop()

    def _follow(self) -> None:
        """Plan again where parameters were added, replaced, frozen or thawed.

        And at the first step: since `attach` a state may have been loaded, or the model sharded.
        """
        if (now := signature(self.optimizer)) != self._signature:
            plan = self._planner()
            self._states.add(plan.all_targets)
            self.plan, self._signature = plan, now
            self._sparse.follow(plan.all_targets, self._states)

    def _lower(self) -> None:
        """Set the optimizer's own decay where it does the rule; each step, since lr and strength change."""
        rule, options = self.rules[0], {}
        for i, switches in self.plan.native.items():
            strength, lr = self.plan.strength(0, i), self.optimizer.param_groups[i]["lr"]
            at = strength.at(self.steps) * self.factor * self.plan.targets[i][0].scale
            self._stepper.check(i, rule, strength, strength.rate(at, lr), self.steps)
            options[i] = {**switches, "weight_decay": at if rule.coupled else strength.native(at, lr)}
        for i, switches in options.items():  # every check is done before the first option changes
            self._native.set(i, switches)
        self._native.put_back(keep=options)

    def _act(self) -> Tensor | float:
        """Decay once a step; add penalties whenever the loss was evaluated, and return their sum."""
        if self._skipped:
            return 0.0
        if self._rounding is not None:
            self._rounding.at(self.steps)
        return self._stepper.act(self.plan, self.steps, self.factor)


# Every decay at work, to find parameters that two optimizers decay.
_ALL: "weakref.WeakSet[Decay]" = weakref.WeakSet()


def attached(optimizer: optim.Optimizer) -> list[Decay]:
    """Return what is attached to an optimizer."""
    decays: list[Decay] = []
    for hook in optimizer._optimizer_step_pre_hooks.values():
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, Decay):
            decays.append(owner)
    return decays


def lowered(optimizer: optim.Optimizer) -> set[int]:
    """Return the groups whose own decay is set by an attached rule."""
    groups: set[int] = set()
    for decay in attached(optimizer):
        groups.update(decay.plan.native)
    return groups


# Groups with more parameters are shown by what they have in common.
_MOST_LINES = 12


def described(
    title: str,
    rules: tuple[Rule, ...],
    plan: Plan,
    optimizer: optim.Optimizer,
    step: int,
    factor: float,
    late: bool,
) -> str:
    """Return the rule, and for every group what decays, how strongly, what does not, and why."""
    everything = [entry for entries in plan.assignments for entry in entries]
    decaying = [entry for entry in everything if entry.scale > 0]
    share = sum(entry.numel for entry in decaying) / max(1, sum(entry.numel for entry in everything))
    lines = [f"{title}: {len(decaying)} of {len(everything)} parameters decay, {share:.0%} of the elements"]
    if not plan.named:
        lines.append("  no names are known: state goes by group and position, roles by shape alone")
    hooks = "hooks after step" if late else "hooks around step"
    if plan.schedule:
        lines.append(f"  schedule: {plan.schedule}")
    for i, entries in enumerate(plan.assignments):
        parts = ["the optimizer's own decay" if i in plan.native else hooks]
        for rule, strengths in zip(rules, plan.strengths, strict=True):
            parts.append(_strength(rule, strengths[i], optimizer.param_groups[i]["lr"], step, factor))
        lines.append(f"  group {i}: {'; '.join(parts) if plan.targets[i] else 'nothing decays'}")
        lines += _one_by_one(entries) if len(entries) <= _MOST_LINES else _by_reason(entries)
    if count := len(plan.elsewhere):
        some = ", ".join(plan.elsewhere[:3]) + ", ..." * (count > 3)
        lines.append(f"  not in this optimizer: {count} parameter{'s' * (count > 1)} of the model ({some})")
    return "\n".join(lines)


def _strength(
    rule: Rule, strength: GroupStrength | None, lr: float | Tensor, step: int, factor: float
) -> str:
    if strength is None:
        return ""
    if not rule.has_strength:
        return rule.shown
    try:
        at = plain(strength.at(step)) * factor
    except InputError:  # a function of the step that has ended: printing goes on
        return "of unknown strength"
    if rule.coupled:
        return f"adds {at:.3g} w to the gradient"
    rate = plain(strength.rate(at, plain(lr)))
    if not rule.paced:
        return f"{type(rule).__name__} with lr·weight_decay = {rate:.3g}"
    return (
        f"removes {rate:.3g} a step {'at any lr' if strength.law == 'constant' else f'at lr = {plain(lr):g}'}"
    )


def _what(entry: Assignment) -> str:
    return "decays" if entry.scale == 1 else f"× {entry.scale:g}" if entry.scale else "no decay"


def _one_by_one(entries: Sequence[Assignment]) -> list[str]:
    width = max((len(entry.name) for entry in entries), default=0)
    return [f"    {_what(e):9} {e.name:{width}} {tuple(e.shape)}: {e.reason}" for e in entries]


def _by_reason(entries: Sequence[Assignment]) -> list[str]:
    alike: dict[tuple[str, str], list[Assignment]] = {}
    for entry in entries:
        alike.setdefault((_what(entry), entry.reason), []).append(entry)
    lines = []
    for (what, reason), same in alike.items():
        names = ", ".join(entry.name for entry in same[:3]) + ", ..." * (len(same) > 3)
        count = (
            f"{len(same)} parameter{'s' * (len(same) > 1)}, {sum(entry.numel for entry in same):,} elements"
        )
        lines.append(f"    {what:9} {count}: {reason} ({names})")
    return lines
