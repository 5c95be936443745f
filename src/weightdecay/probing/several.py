"""Several parameter groups at once: does each decay by its own strength?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import Tensor

from weightdecay.probing.building import Build
from weightdecay.probing.course import WARM, Driver, Setting

Pattern = tuple[float, ...]
# Strengths of three groups, in multiples of one: a first group that decays, and one that does not.
PATTERNS: tuple[Pattern, ...] = ((1.0, 2.0, 0.0), (0.0, 1.0, 2.0))
_WEAK = 1e-3  # strengths so small that many steps remove in proportion to them


def mixed_up(
    build_with: Callable[[Pattern], Build],
    setting: Setting,
    patterns: Sequence[Pattern],
    lr: float,
    strength: float,
    every: float,
) -> str | None:
    """How groups of one matrix each decay, where that is not by their own strengths; else None.

    All have the same weights and gradients, so that they differ by their strengths alone.

    Args:
        build_with: makes an optimizer with a parameter in each group, of these strengths.
        setting: how to drive it; its `build` puts all parameters into one group.
        patterns: the strengths to try, each in multiples of one.
        lr: the step size.
        strength: λ, of which it takes no more than a little.
        every: how many steps lie between two that decay.
    """
    strength, start = min(strength, _WEAK), setting.start[0]
    gradients = [given[0] for given in setting.gradients[: max(WARM + 1, int(2 * every) + 1)]]

    def after(build: Build, n: int, weight_decay: float) -> list[Tensor]:
        driver = Driver(replace(setting, build=build, start=[start] * n), lr, weight_decay)
        for given in gradients:
            driver.step([given] * n)
        return driver.values()

    def removed(build: Build, n: int, weight_decay: float) -> list[float]:
        # Against as many parameters without decay: random numbers and norms over all of them are the same.
        pairs = zip(after(setting.build, n, 0.0), after(build, n, weight_decay), strict=True)
        return [float(((without - one).double() / start.double()).median()) for without, one in pairs]

    once, twice = (removed(setting.build, 1, times * strength)[0] for times in (1, 2))
    if not abs(once) > 0 or not 1 < twice / once < 8:
        return None  # it is not the strength that decides
    power = math.log2(twice / once)
    first, second = removed(setting.build, 2, strength)
    if abs(first / once - 1) < 0.3 and abs(beside := second / once) < 0.3:
        return f"of two alike parameters in one group, the second decays {abs(beside):.2g} times as much"
    for pattern in patterns:
        given = tuple(times * strength for times in pattern)
        seen = [one / once for one in removed(build_with(given), len(given), max(given))]
        wanted = [times**power for times in pattern]
        common = sum(seen) / sum(wanted)  # a norm over all of them may scale all alike
        off = [
            abs(one - common * to) > 0.3 * common * max(to, 1.0) for one, to in zip(seen, wanted, strict=True)
        ]
        if any(off) or not 0.3 < common < 3:
            asked, got = (", ".join(f"{abs(one):.2g}" for one in values) for values in (pattern, seen))
            return f"strengths in the proportion {asked} decay as {got}"
    return None
