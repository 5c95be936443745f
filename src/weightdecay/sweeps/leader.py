"""The best strength so far, while trainings arrive one by one."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from weightdecay.sweeps.records import Chunk, Copy, Trained
from weightdecay.sweeps.selection import Goal, tied
from weightdecay.sweeps.strengths import ascending

Key = tuple[str, float | None, float]  # rule, learning rate, strength


def key_of(copy: Copy) -> Key:
    """What the seeds of a strength share."""
    return copy.rule, copy.lr, copy.strength


@dataclass
class Leader:
    """The strength with the best mean score of those that every seed has finished.

    Of means that are equal up to rounding it is the one that the end chooses (`best_of`, `choose_paired`),
    whoever finished first: the setting that comes first, and there the strongest.

    Args:
        goal: what is best.
        seeds: the seeds.
        settings: every rule at every step size, in their order.
    """

    goal: Goal
    seeds: tuple[int, ...]
    settings: Sequence[tuple[str, float | None]]
    scores: dict[Key, dict[int, float]] = field(default_factory=dict)
    best: tuple[Key, float] | None = None

    def add(self, trained: Iterable[Trained]) -> None:
        """Take in trainings."""
        for one in trained:
            key = key_of(one.copy)
            scores = self.scores.setdefault(key, {})
            scores[one.copy.seed] = self.goal.score(one)
            if self.complete(key):
                several = [scores[seed] for seed in self.seeds]
                mean = torch.tensor(several, dtype=torch.float64, device="cpu").mean().item()
                if not math.isfinite(mean):  # one diverged: never chosen
                    continue
                if self.best is None or self._before(one.copy.unit, (key, mean), self.best):
                    self.best = key, mean

    def _before(self, unit: str, new: tuple[Key, float], old: tuple[Key, float]) -> bool:
        """Whether the new one is chosen of the two."""
        if not tied(new[1], old[1], len(self.seeds)):
            return self.goal.sign * (new[1] - old[1]) < 0
        (*setting, strength), (*other, least) = new[0], old[0]
        if setting != other:
            places = [self.settings.index((rule, lr)) for rule, lr in (setting, other)]
            return places[0] < places[1]
        return ascending((least, strength), unit)[-1] == strength

    def complete(self, key: Key) -> bool:
        """Whether every seed has finished."""
        return len(self.scores.get(key, ())) == len(self.seeds)

    def may_need(self, chunk: Chunk) -> bool:
        """Whether the weights of a chunk may turn out to be the best."""
        keys = [(chunk.rule, chunk.lr, strength) for strength in chunk.strengths]
        return any(not self.complete(key) or (self.best and key == self.best[0]) for key in keys)
