"""The decay that was asked for: the fraction of each weight that a step is to remove."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import optim

from weightdecay.hooks.decay import Decay, attached
from weightdecay.hooks.optimizers import FLAG, form_of, is_adaptive, momentum_of
from weightdecay.hooks.plan import plain
from weightdecay.probing.run import probe_optimizer
from weightdecay.units import coupled_rate


@dataclass(frozen=True)
class Intent:
    """What one step is to do to one parameter.

    Args:
        rate: the fraction of the weight that goes per step in the long run; NaN where the decay has none
            (coupled, and divided by the gradient's size).
        at_once: the fraction that goes within the step itself. Less than `rate` where momentum carries the
            rest into later steps.
        weight_decay: the strength λ.
        lr: the step size.
    """

    rate: float
    at_once: float
    weight_decay: float
    lr: float


@dataclass(frozen=True)
class Multiple:
    """What the strength of an optimizer that was probed means, as multiples of lr·λ.

    Args:
        of: of the long run; NaN where it has no rate.
        at_once: of one step.
        lr: the step size it was probed at, where the rate does not follow it; else None.
        mixed: whether its groups decay by other strengths than their own.
    """

    of: float
    at_once: float = math.nan
    lr: float | None = None
    mixed: bool = False


def intents(optimizer: optim.Optimizer, forms: dict[int, Multiple]) -> dict[int, Intent]:
    """For every parameter, by identity, the decay that the coming step is to do.

    Args:
        optimizer: the optimizer, with its own decay or with attached rules.
        forms: what groups that have to be probed remove, by position; filled when first needed.
    """
    intended = {}
    for i, group in enumerate(optimizer.param_groups):
        lr, strength = plain(group["lr"]), plain(group.get("weight_decay") or 0.0)
        own = Intent(*own_rates(optimizer, i, group, strength, lr, forms), strength, lr)
        intended |= {id(parameter): own for parameter in group["params"]}
    for decay in attached(optimizer):
        intended |= _attached(decay)
    return intended


def own_rates(
    optimizer: optim.Optimizer,
    i: int,
    group: Mapping[str, Any],
    strength: float,
    lr: float,
    forms: dict[int, Multiple],
) -> tuple[float, float]:
    """The fraction that the optimizer's own decay is to remove, in the long run and within the step."""
    if strength == 0 or lr == 0:
        return 0.0, 0.0
    if form_of(optimizer, group, inherited=True) == "decoupled" or group.get(FLAG):
        return lr * strength, lr * strength
    if (sgd := momentum_of(optimizer, group)) is not None:
        return _coupled(strength, lr, **sgd)
    if type(optimizer).__module__.startswith("torch.optim"):
        rate = math.nan if is_adaptive(optimizer, group) else lr * strength
        return rate, rate
    if i not in forms:
        forms[i] = _probed(optimizer, i, strength)
    multiple = forms[i]
    unit = strength * (lr if multiple.lr is None else multiple.lr)
    return multiple.of * unit, multiple.at_once * unit


def _coupled(
    strength: float, lr: float, momentum: float, dampening: float, nesterov: bool
) -> tuple[float, float]:
    """Both fractions of L2 in torch's SGD; the gradient's share of a step is (1 - d), Nesterov's 1 + mu."""
    share = 1 + momentum if nesterov else 1 - dampening if momentum else 1.0
    return coupled_rate(strength, lr, momentum, dampening, nesterov), lr * strength * share


def _probed(optimizer: optim.Optimizer, i: int, strength: float) -> Multiple:
    """What an unknown optimizer is to remove: what was measured, put right where it is not what λ means."""
    probed = probe_optimizer(optimizer, i)
    if probed.rate is None or not probed.expected or probed.form in ("sign-normalised", "unknown"):
        return Multiple(math.nan, mixed=probed.mixed)
    if probed.form == "decoupled" and probed.factor:
        return Multiple(1.0, 1.0, mixed=probed.mixed)  # without gradient an orthogonalised update may be any
    then = probed.expected / strength if probed.form == "independent" else None
    unit = probed.expected * (probed.factor or 1.0)
    at_once = probed.in_step if probed.form == "coupled" and probed.in_step else probed.rate
    return Multiple(probed.rate / unit, at_once / unit, then, probed.mixed)


def _attached(decay: Decay) -> dict[int, Intent]:
    """What attached rules are to remove; of a chain the sum."""
    intended: dict[int, Intent] = {}
    for i, targets in enumerate(decay.plan.targets):
        group = decay.optimizer.param_groups[i]
        lr, sgd = plain(group["lr"]), momentum_of(decay.optimizer, group)
        for r, rule in enumerate(decay.rules):
            strength = decay.plan.strengths[r][i]
            if strength is None:
                continue
            at = plain(strength.at(decay.steps)) * decay.factor
            for target in targets:
                wd = at * target.scale
                rates = (plain(strength.rate(wd, lr)),) * 2
                if not rule.paced:
                    rates = (math.nan, math.nan)
                elif rule.coupled and lr > 0:
                    rates = (math.nan, math.nan) if sgd is None else _coupled(wd, lr, **sgd)
                before = intended.get(id(target.parameter), Intent(0.0, 0.0, 0.0, lr))
                both = before.rate + rates[0], before.at_once + rates[1]
                intended[id(target.parameter)] = Intent(*both, before.weight_decay + wd, lr)
    return intended


# From this correlation on at half of the longest lag the sum goes on beyond it, as a geometric series.
_TAIL = 0.05


def equilibrium_norm(update_norm: float, kappa: float, rate: float) -> float:
    """The norm at which decay and updates balance, U sqrt(kappa/(1 - r²)); infinite without decay.

    Args:
        update_norm: U, the norm of the gradient part of an update.
        kappa: its autocorrelation factor; 1 for updates that are independent.
        rate: the fraction of a weight that the decay removes in a step.

    >>> round(equilibrium_norm(1e-3, 1.0, 1e-4), 5)  # sqrt(lr/(2 wd)) with lr 1e-3, wd 0.1
    0.07071
    """
    if not rate > 0:
        return math.inf if rate == 0 else math.nan
    return update_norm * math.sqrt(max(kappa, 0.0) / (rate * (2 - rate)))


def kappa_of(products: Sequence[float], rate: float) -> float:
    """The autocorrelation factor 1 + 2 sum rho_k r^k from mean products of updates k steps apart.

    Args:
        products: mean of u_t·u_{t+k} for k = 0, 1, ...
        rate: the fraction of a weight that the decay removes in a step.

    What lies beyond the longest lag K is added as a geometric series where the correlation at K/2 is still
    above 0.05: 2 rho_K r^K q/(1 - q), q the factor from lag to lag.

    >>> round(kappa_of([0.9**k for k in range(17)], 0.0), 3)  # (1 + 0.9)/(1 - 0.9)
    19.0
    """
    if not products or not products[0] > 0:
        return math.nan
    r, last = 1 - rate, len(products) - 1
    terms = [product / products[0] * r**k for k, product in enumerate(products)]
    kappa = 1 + 2 * sum(terms[1:])
    middle = last // 2
    if last >= 4 and terms[middle] > _TAIL and terms[last] > 0:
        q = (terms[last] / terms[middle]) ** (1 / (last - middle))
        if q < 1:
            kappa += 2 * terms[last] * q / (1 - q)
    return kappa
