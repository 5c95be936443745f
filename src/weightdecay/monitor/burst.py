"""A few consecutive steps on a sample of each parameter's elements: how updates go on from one another."""

import torch
from torch import Tensor, nn

# Elements of a parameter that are followed: enough that a correlation is known to about 1 %.
SAMPLE = 4096


class Burst:
    """Consecutive updates of one parameter, on a fixed sample of its elements; made before the first step.

    The gradient part of a step is u = w' - (1 - rate) w, w the weights before it. What changes the weights
    between two steps counts as part of the second.

    Args:
        parameter: the parameter.
        generator: draws the sample.
    """

    def __init__(self, parameter: nn.Parameter, generator: torch.Generator) -> None:
        count = parameter.numel()
        drawn = torch.randperm(count, generator=generator, device="cpu")[:SAMPLE] if count > SAMPLE else None
        self._index = None if drawn is None else drawn.sort().values.to(parameter.device)
        self._weights = [self._sampled(parameter)]
        self._rates: list[float] = []

    def after(self, parameter: nn.Parameter, rate: float) -> None:
        """Keep what the step has made of the weights; `rate` is the fraction that it was to remove."""
        self._weights.append(self._sampled(parameter))
        self._rates.append(rate)

    def products(self) -> list[float]:
        """Mean products u_t·u_{t+k} of the steps until now, k = 0, 1, ..., half of their number."""
        if len(self._rates) < 2:
            return []
        w = torch.stack(self._weights).double()
        kept = 1 - torch.tensor(self._rates, dtype=torch.float64, device=w.device)
        u = w[1:] - kept[:, None] * w[:-1]
        gram = u @ u.T
        return [float(gram.diagonal(k).mean()) for k in range(1 + len(u) // 2)]

    def _sampled(self, parameter: nn.Parameter) -> Tensor:
        flat = parameter.detach().reshape(-1)
        return flat.clone() if self._index is None else flat[self._index]
