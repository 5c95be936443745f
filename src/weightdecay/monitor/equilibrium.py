"""Where decay and updates balance: the general law, its measured ingredients and the closed forms.

r = 1 - rate. If the gradient part u of the updates is stationary and does not depend on w,

    E||w||² = U² kappa / (1 - r²),   U² = E||u||²,   kappa = 1 + 2 sum_k rho_k r^k,

with rho_k the autocorrelation of u at lag k. ||w||² comes to it at rate 2·rate.
"""

import math
from collections.abc import Sequence

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
