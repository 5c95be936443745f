"""Attach a decay rule to an optimizer: everything is checked first, then everything is changed."""

import functools
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn, optim

from weightdecay import arguments
from weightdecay.arguments import count, number
from weightdecay.errors import InputError, WeightDecayWarning
from weightdecay.hooks.decay import Decay, attached, lowered
from weightdecay.hooks.optimizers import bare_optimizer, check_native, check_optimizer, is_torchs
from weightdecay.hooks.plan import On, Plan, check_strengths, make_plan
from weightdecay.hooks.ranks import Ranks, check_shards, summary
from weightdecay.hooks.rounding import make_rounding
from weightdecay.hooks.sparse import Sparse
from weightdecay.hooks.trial import try_optimizer, try_rule
from weightdecay.rules import Chain, Rule, rules_of
from weightdecay.rules.strength import Setting
from weightdecay.schedule.learning_rates import Interval, bare_scheduler, described_lrs


def attach(
    optimizer: Any,
    rule: Rule | Chain,
    *,
    model: nn.Module | None = None,
    on: On = "matrices",
    steps_per_epoch: float | None = None,
    samples_per_step: float | None = None,
    tokens_per_step: float | None = None,
    steps: int | None = None,
    schedule: Any = None,
    interval: Interval | None = None,
    compile: bool = False,
    rounding: str = "nearest",
    seed: int = 0,
    sparse: str = "lazy",
) -> Decay:
    """Make an optimizer decay its parameters by a rule, inside its own `step`.

    Of a sharded model (`fully_shard`, DTensor) all ranks call it, after sharding and after the optimizer is
    built from the shards; they compare what they are about to do, and so do those of a
    DistributedDataParallel that is given as `model`. Complex weights decay as pairs of reals.

    Where the optimizer brings the rule along and a whole parameter group decays, its own option is set: the
    same bits and no cost. Elsewhere hooks run around `step`, closures included. `print(decay)` shows which
    parameters decay, why, and whether the optimizer or a hook does it.

    An optimizer whose class is not torch's own is tried on a small copy, which takes some tenths of a second
    once: decay that would not survive its step is done after the step, or refused.

    Args:
        optimizer: any torch.optim.Optimizer, built with weight_decay=0; of a wrapper by Accelerate, Fabric
            or Lightning, the optimizer inside.
        rule: a decay rule, or a `chain` of several.
        model: the model whose parameters these are; it decides roles and names. Left out, the names and
            shapes that the optimizer holds decide.
        on: which parameters decay: the name of a preset; one `Group`, and nothing else; or a list of both
            that covers every parameter, first match wins.
        steps_per_epoch: for half-lives in epochs.
        samples_per_step: for half-lives in samples; the batch size times accumulated batches.
        tokens_per_step: for half-lives in tokens.
        steps: how many optimizer steps the run has, for a schedule or half-lives per run.
        schedule: the learning rates of the run: a torch LR scheduler before its first step (simulated on a
            copy), one number a step, one row a group, or a function of the step. It gives the peak where
            the rule or a half-life needs one.
        interval: how often the schedule goes on: "step", once an optimizer step; "epoch", once an epoch of
            `steps_per_epoch` steps; or a number of optimizer steps. None: for a torch scheduler it is found
            from its own length, or asked for; else "step". `print(decay)` shows it.
        compile: let torch.compile write one kernel for a rule that takes several passes (`Cautious`, your
            own): less time in every step, some seconds in the first; on a CPU it needs a C++ compiler.
        rounding: "nearest", or "stochastic" for weights too narrow for their decay: bfloat16 and float16
            without a wide copy, or float32 under a rate of less than 1e-6. The decay is then computed in
            twice the width, piece by piece, and rounded up or down at random, so that it happens on
            average; `decay.happened()` says how much of it did. The update is rounded by the optimizer.
        seed: of that randomness; torch's own generators are left alone.
        sparse: of parameters whose gradient is sparse (`nn.Embedding(sparse=True)`), "lazy": a row catches up
            with all the decay it has missed before its module looks it up (with `model=`; else in the step
            that touches it) and on `Decay.flush`, and then is what dense decay makes it; or "touched": the
            rule acts on the rows in the gradient alone. Lazily go `Decoupled`, `Independent`, `Corrected` and
            `Toward` a point that stays; what else can go as "touched" is refused until you say so. Call
            `Decay.flush` before anyone but the model's own modules reads or writes a table: an EMA, say.

    Convention: each rule says how lr multiplies. A half-life without learning rate (neither `HalfLife(lr=)`
    nor `schedule`) holds at every lr. With gradient accumulation a step is an optimizer step.

    Returns:
        The `Decay`: `state_dict`, `load_state_dict`, `detach`.

    Raises:
        InputError: something cannot be used; nothing has been changed then.

    >>> import torch
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD(model.named_parameters(), lr=0.1)
    >>> from weightdecay.rules import Decoupled
    >>> print(attach(optimizer, Decoupled(0.5), model=model))
    Decay(Decoupled(weight_decay=0.5)) on SGD: 1 of 2 parameters decay, 75% of the elements
      group 0: hooks around step; removes 0.05 a step at lr = 0.1
        decays    weight (1, 3): weight of Linear
        no decay  bias   (1,): bias of Linear
    """
    rules = rules_of(rule)
    optimizer = check_optimizer(optimizer)
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    with Ranks(optimizer, model=model) if together else nullcontext() as ranks:
        stochastic = make_rounding(rounding, seed, rules, compile) if rounding != "nearest" else None
        rows = Sparse(sparse, optimizer, rules, model, at_random=stochastic is not None)
        if model is not None:
            arguments.model(model)
        check_native(optimizer, leave_out=lowered(optimizer))
        per = {
            "steps_per_epoch": steps_per_epoch,
            "samples_per_step": samples_per_step,
            "tokens_per_step": tokens_per_step,
        }
        setting = _setting(optimizer, per, steps, schedule, interval)
        planner = functools.partial(
            make_plan,
            optimizer,
            rules,
            model,
            on,
            setting,
            # SGD and Adagrad refuse their own decay where a gradient is sparse.
            by_hooks=stochastic is not None or (sparse == "touched" and any(each.coupled for each in rules)),
            at_random=stochastic is not None,
        )
        plan = planner()
        _check_free(optimizer, plan)
        if not plan.all_targets:
            raise InputError("no parameter of the optimizer decays", "on", repr(on), "choose other groups")
        for each in rules:
            if not each.built_in:
                try_rule(each, plan.all_targets)
        late = not is_torchs(optimizer) and try_optimizer(optimizer, plan, rules)
        for line in check_strengths(optimizer, rules, plan, setting, stochastic is not None):
            warnings.warn(line, WeightDecayWarning, stacklevel=2)
        if ranks:
            check_shards(optimizer, plan.all_targets)
            options = {"rounding": rounding, "seed": seed, "sparse": sparse}
            ranks.agree(summary(optimizer, rules, rule.shown, plan, **options))
        planner = functools.partial(planner, again=True)
        decay = Decay(optimizer, rule, plan, planner, compile, rows, stochastic, late)
        if ranks:
            try:
                ranks.agree({})  # again: a rule may not be able to start on one of them
            except InputError:
                decay.detach()
                raise
    return decay


def _setting(
    optimizer: optim.Optimizer,
    per: Mapping[str, float | None],
    steps: int | None,
    schedule: Any,
    interval: Interval | None,
) -> Setting:
    """What is known about the training, checked."""
    checked: dict[str, Any] = dict(per)
    for name, value in per.items():
        if value is not None:
            checked[name] = number(value, name, above=0)
    total = None if steps is None else count(steps, "steps")
    if schedule is None:
        if interval is not None:
            raise InputError(
                "an interval without a schedule", "interval", repr(interval), "give schedule=, too"
            )
        return Setting(**checked, steps=total)
    if isinstance(schedule, str):
        raise InputError(
            "a schedule's name has no peak",
            "schedule",
            repr(schedule),
            "give the torch scheduler, the learning rates, or a function of the step",
        )
    scheduler = bare_scheduler(schedule)
    if bare_optimizer(getattr(scheduler, "optimizer", optimizer)) is not optimizer:
        raise InputError(
            "the scheduler belongs to another optimizer",
            "schedule",
            type(scheduler).__name__,
            "give the one made for this optimizer",
        )
    groups, per_epoch = len(optimizer.param_groups), checked["steps_per_epoch"]
    rates, stepped = described_lrs(schedule, steps, interval=interval, steps_per_epoch=per_epoch)
    if len(rates) not in (1, groups):
        raise InputError(
            "a schedule has one row for each parameter group", "schedule", len(rates), f"give {groups} rows"
        )
    return Setting(**checked, steps=total, lrs=rates, schedule=stepped)


def _check_free(optimizer: optim.Optimizer, plan: Plan) -> None:
    """Refuse a second rule on a parameter that has one.

    Raises:
        InputError: it would decay twice.
    """
    for other in attached(optimizer):
        if shared := other.shared_with(plan):
            raise InputError(
                "a second decay on top of the one attached",
                next(own.name for own in plan.all_targets if own.parameter is shared.parameter),
                other.shown,
                "detach the first, or give both in one wd.chain",
            )
