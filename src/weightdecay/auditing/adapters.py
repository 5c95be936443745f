"""WD106: adapters that decay, and whether that pulls to the base model or away from it."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from weightdecay.auditing.drafts import Draft
from weightdecay.auditing.reading import Held, Live
from weightdecay.groups.tracing import replica

_ADAPTER = re.compile(
    r"(^|[._])lora_?(embedding_)?(a|b|down|up|magnitude_vector)($|[._])"
    r"|(^|\.)((hada|lokr)_w\d|ia3_l|boft_s|road_alpha)",
    re.I,
)
# Neutral at 1 or at the base weights' norms, not at 0: for layers that cannot be tried.
_MULTIPLIER = re.compile(r"(^|[._])(ia3_l|boft_s|lora_magnitude_vector|road_alpha)($|[._])")


def adapters(live: Live, decaying: list[Held]) -> Iterator[Draft]:
    """The findings about adapters that decay."""
    inside, away = adapter_parameters(live), _away_from_base(live)
    mine = [one for one in decaying if id(one.parameter) in inside]
    if names := tuple(one.name for one in mine if id(one.parameter) in away):
        message = (
            "{n} parameter{|s} of adapters decay{s|} away from the base model: at 0 {it leaves|they leave} "
            "nothing of a layer's output"
        )
        fix = "give strength 0; or wd.attach wd.Toward, which pulls to where they started"
        yield Draft("WD106", names, message, fix, "warning")
    if names := tuple(one.name for one in mine if id(one.parameter) not in away):
        message = "{n} parameter{|s} of adapters decay{s|}: that pulls to the base model, not to zero"
        yield Draft("WD106", names, message, "keep it if that is meant; else give adapters strength 0")


def adapter_parameters(live: Live) -> set[int]:
    """Identities of what adapters added: those of peft by their class, others by their names."""
    inside = _of_peft(live.model)
    return inside | {id(one.parameter) for one in live.held if _ADAPTER.search(one.name)}


def _away_from_base(live: Live) -> set[int]:
    """Identities of the parameters of adapters whose decay leads away from the base model."""
    tried = _tried_layers(live.model)
    held = {id(one.parameter): one.name for one in live.held}
    return {key for key, name in held.items() if tried.get(key, bool(_MULTIPLIER.search(name)))}


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The layers that peft has put around others."""
    for module in model.modules():
        if any(kind.__name__ == "BaseTunerLayer" for kind in type(module).__mro__):
            yield module


def _of_peft(model: nn.Module) -> set[int]:
    """What adapters of peft added, without the layers they wrap."""
    return {
        id(p)
        for module in _layers(model)
        for name, p in module.named_parameters()
        if not name.startswith("base_layer.")
    }


def _tried_layers(model: nn.Module) -> dict[int, bool]:
    """Whether each parameter of peft's linear layers, set to 0, takes the layer's output from the base's."""
    known: dict[Any, dict[str, bool]] = {}
    found: dict[int, bool] = {}
    for layer in _layers(model):
        own = {name: p for name, p in layer.named_parameters() if not name.startswith("base_layer.")}
        key = type(layer), tuple((name, tuple(p.shape)) for name, p in own.items())
        if key not in known:
            known[key] = _tried(layer, tuple(own))
        found |= {id(own[name]): away for name, away in known[key].items()}
    return found


@torch.no_grad()
def _tried(layer: nn.Module, names: tuple[str, ...]) -> dict[str, bool]:
    """For each name, whether the layer with zeros there is far from its base; nothing where it cannot run."""
    try:
        twin = replica(layer)
        for module in twin.modules():
            module.__dict__["training"] = False
        base: Any = twin.base_layer
        if not isinstance(base, nn.Linear) or base.weight.is_meta:
            return {}
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(4, base.in_features, generator=generator).to(base.weight)
        target = base(x)
        tried = {
            name: torch.func.functional_call(twin, {name: torch.zeros_like(twin.get_parameter(name))}, (x,))
            for name in names
        }
        return {name: float((y - target).norm()) > 0.5 * float(target.norm()) for name, y in tried.items()}
    except Exception:  # a forward is anybody's code; then names have to do
        return {}
