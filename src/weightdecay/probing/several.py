"""Several parameter groups at once: does each decay by its own strength?"""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from weightdecay.probing.building import Build
from weightdecay.probing.course import WARM, Driver, Setting

# Strengths of three groups, in multiples of one: a first group that decays, and one that does not.
PATTERNS = ((1.0, 2.0, 0.0), (0.0, 1.0, 2.0))
_WEAK = 1e-3  # strengths so small that many steps remove in proportion to them


def mixed_up(
    build_with: Callable[[tuple[float, ...]], Build],
    setting: Setting,
    lr: float,
    strength: float,
    every: float,
) -> str | None:
    """How three groups of one matrix each decay, where that is not by their own strengths; else None.

    The three have the same weights and gradients, so that they differ by their strengths alone.

    Args:
        build_with: makes an optimizer with a parameter in each group, of these strengths.
        setting: how to drive it; its `build` puts all parameters into one group.
        lr: the step size.
        strength: λ.
        every: how many steps lie between two that decay.
    """
    strength = min(strength, _WEAK) if setting.start[0].is_floating_point() else strength
    steps = max(WARM + 1, int(2 * every) + 1)
    gradients = [[given[0]] * 3 for given in setting.gradients[:steps]]
    alike = replace(setting, start=[setting.start[0]] * 3, gradients=gradients)

    def after(build: Build, weight_decay: float) -> list[Tensor]:
        driver = Driver(replace(alike, build=build), lr, weight_decay)
        for given in gradients:
            driver.step(given)
        return driver.values()

    without = after(build_with((0.0, 0.0, 0.0)), 0.0)

    def removed(values: list[Tensor]) -> list[float]:
        pairs = zip(without, values, strict=True)
        return [float(((one - other).double() / setting.start[0].double()).median()) for one, other in pairs]

    once, twice = (removed(after(setting.build, times * strength))[0] for times in (1, 2))
    if not abs(once) > 0 or not 0.5 < twice / once < 8:
        return None  # it is not the strength that decides
    amounts = {0.0: 0.0, 1.0: 1.0, 2.0: twice / once}
    for pattern in PATTERNS:
        given = tuple(times * strength for times in pattern)
        seen = [one / once for one in removed(after(build_with(given), max(given)))]
        if any(abs(one - amounts[times]) > 0.3 for one, times in zip(seen, pattern, strict=True)):
            asked, got = (", ".join(f"{one:.2g}" for one in values) for values in (pattern, seen))
            return f"groups whose strengths are as {asked} decay as {got}"
    return None
