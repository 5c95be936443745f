"""Coupled (L2) decay on SGD with momentum: the rate it really has, and the strength for a half-life.

With no gradient from the loss, torch's SGD follows a linear recursion of two steps. A weight shrinks by
the larger root z of its characteristic equation, and the rate is 1 - z:

    plain     z² - (1 + mu - a) z + mu = 0                 a = lr·wd·(1 - dampening)
    Nesterov  z² - (1 + mu)(1 - b) z + mu (1 - b) = 0      b = lr·wd
"""

import math

from weightdecay.errors import InputError
from weightdecay.units.numbers import number


def coupled_rate(
    weight_decay: float, lr: float, momentum: float = 0, dampening: float = 0, nesterov: bool = False
) -> float:
    """The fraction of a weight that torch's SGD with `weight_decay` removes in a step, momentum counted.

    rate = 1 - |z|, z the root of larger modulus; about a/(1 - mu) for small a.

    Convention: coupled decay, g <- g + wd·w, without gradient from the loss. Where the weight oscillates
    (see `oscillates_from`) this is the rate of the envelope; `advice` warns about it.

    Raises:
        InputError: an argument out of range, or the weight diverges.

    >>> from weightdecay.units.rates import half_life
    >>> round(half_life(coupled_rate(5e-4, lr=0.1, momentum=0.9)))
    1380
    """
    a, mu = _scaled(weight_decay, lr, momentum, dampening, nesterov)
    if a >= diverges_from(mu, nesterov):
        limit = diverges_from(mu, nesterov) / (a / number(weight_decay, "weight_decay"))
        raise InputError(
            "the weight diverges", "weight_decay", weight_decay, f"give less than {limit:.4g} at lr = {lr:g}"
        )
    # In x = 1 - z the equation is x² - c x + a = 0, free of cancellation; its discriminant, factored.
    if nesterov:
        c, discriminant = 1 - mu + a * (1 + mu), (1 - a) * ((1 - mu) ** 2 - (1 + mu) ** 2 * a)
        product = mu * (1 - a)
    else:
        c, root = 1 - mu + a, math.sqrt(mu)
        discriminant, product = ((1 - root) ** 2 - a) * ((1 + root) ** 2 - a), mu
    if discriminant < 0:
        return 1 - math.sqrt(product)
    root = math.sqrt(discriminant)
    slow = 2 * a / (c + root)
    fast = (c + root) / 2
    return min(slow, 2 - fast)  # the second where the faster root lies beyond -z


def coupled_weight_decay(
    half_life_steps: float, lr: float, momentum: float = 0, dampening: float = 0, nesterov: bool = False
) -> float:
    """The `weight_decay` of torch's SGD under which a weight has this half-life in steps, momentum counted.

    With z = 2^(-1/h): a = (1 - z)(z - mu)/z, and with Nesterov b = (1 - z)(z - mu)/((1 + mu) z - mu).

    Convention: coupled decay; the inverse of `coupled_rate`, where the weight does not oscillate.

    Raises:
        InputError: an argument out of range, or a half-life so short that momentum cannot follow it
            (z must be the slow root: sqrt(mu) or more, with Nesterov 2 mu/(1 + mu) or more).

    >>> round(coupled_weight_decay(1380, lr=0.1, momentum=0.9), 6)
    0.0005
    """
    steps = number(half_life_steps, "half_life_steps", above=0, infinite=True)
    lr = number(lr, "lr", above=0)
    _, mu = _scaled(0.0, lr, momentum, dampening, nesterov)
    removed = -math.expm1(-math.log(2) / steps)
    z = 1 - removed
    least = 2 * mu / (1 + mu) if nesterov else math.sqrt(mu)
    if z < least or removed >= 1:
        shortest = math.log(2) / -math.log(least) if least else 0.0
        raise InputError(
            "a shorter half-life than this momentum can have",
            "half_life_steps",
            half_life_steps,
            f"give {math.ceil(shortest * 100) / 100:g} or more at momentum = {mu:g}",
        )
    a = removed * (z - mu) / (((1 + mu) * z - mu) if nesterov else z)
    return a / (lr * (1 - dampening if mu else 1.0))


def oscillates_from(momentum: float, nesterov: bool = False) -> float:
    """From which a = lr·wd·(1 - dampening) on a weight oscillates.

    (1 - sqrt mu)²; Nesterov ((1 - mu)/(1 + mu))².

    >>> round(oscillates_from(0.9), 4)
    0.0026
    """
    return ((1 - momentum) / (1 + momentum)) ** 2 if nesterov else (1 - math.sqrt(momentum)) ** 2


def diverges_from(momentum: float, nesterov: bool = False) -> float:
    """From which a = lr·wd·(1 - dampening) on a weight grows: 2 (1 + mu), Nesterov 2 (1 + mu)/(1 + 2 mu)."""
    return 2 * (1 + momentum) / (1 + 2 * momentum if nesterov else 1)


def _scaled(
    weight_decay: float, lr: float, momentum: float, dampening: float, nesterov: bool
) -> tuple[float, float]:
    """The checked a = lr·wd·(1 - dampening), and mu."""
    weight_decay, lr = number(weight_decay, "weight_decay", least=0), number(lr, "lr", least=0)
    mu = number(momentum, "momentum", least=0, below=1)
    dampening = number(dampening, "dampening", least=0, below=1)
    if nesterov and dampening:
        raise InputError("Nesterov momentum goes without dampening", "dampening", dampening, "give 0")
    # Without momentum torch has no buffer, and dampening does nothing.
    return lr * weight_decay * (1 - dampening if mu else 1.0), mu
