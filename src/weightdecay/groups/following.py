"""Which weights are followed by a normalisation: from the order of nn.Sequential and from torch.fx.

Nothing runs on data and nothing in the model changes: torch.fx traces a copy of the modules' structure that
shares the tensors.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, fx, nn

from weightdecay.groups.scaling import fate, keeps_scale
from weightdecay.groups.tracing import WEIGHTED, is_leaf, normalises, replica, traced

Verdicts = dict[int, set[bool | None]]


@dataclass(frozen=True)
class Following:
    """Identities of the weights that are followed by a normalisation, and of those where nobody can tell."""

    yes: frozenset[int] = frozenset()
    unknown: frozenset[int] = frozenset()
    problem: str = ""

    def why(self, parameter: Tensor) -> str:
        """The word for one parameter."""
        if id(parameter) in self.yes:
            return "followed by a normalisation"
        if id(parameter) in self.unknown:
            return "no normalisation seen behind it, but the model does not trace"
        return "not followed by a normalisation"


def followed_by_norm(model: nn.Module) -> Following:
    """Find the weights whose layers' outputs go to normalisations and nowhere else.

    Between layer and normalisation there may be what a positive factor passes through: identity, dropout,
    reshapes, products, ReLU, pooling. A model that torch.fx cannot trace is read part by part, and
    nn.Sequential by its order. A weight that is used in several places has to be followed by a normalisation
    in all of them.
    """
    verdicts: Verdicts = {}
    problem = _judge(replica(model), verdicts, whole=True)
    return Following(
        yes=frozenset(key for key, found in verdicts.items() if found == {True}),
        unknown=frozenset(key for key, found in verdicts.items() if None in found and False not in found),
        problem=problem,
    )


def _judge(module: nn.Module, verdicts: Verdicts, whole: bool) -> str:
    """Record what is known of each weight inside a module; return why the module does not trace, if so."""
    if is_leaf(module):
        # What torch's own blocks hold is not followed by a normalisation: there a residual comes between.
        _record(module, verdicts, False if whole or not isinstance(module, WEIGHTED) else None)
        return ""
    graph = traced(module)
    if isinstance(graph, fx.Graph):
        _read(module, graph, verdicts, whole)
        return ""
    children = module.children()
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        children = _chain(module, verdicts, whole)
    for child in children:
        _judge(child, verdicts, whole=False)
    return graph


def _record(module: nn.Module, verdicts: Verdicts, *found: bool | None) -> None:
    for layer in module.modules():
        if isinstance(layer, WEIGHTED):
            for weight in _weights(layer):
                verdicts.setdefault(id(weight), set()).update(found)


def _weights(layer: nn.Module) -> Iterator[Tensor]:
    """The layer's weight, or what a parametrisation, pruning or weight_norm makes it from."""
    held = dict(layer._parameters)
    made = getattr(layer, "parametrizations", None)
    if isinstance(made, nn.ModuleDict) and "weight" in made:
        originals = dict(made["weight"]._parameters)
        several = "original1" in originals
        held = {"weight": originals.get("original1" if several else "original")}
    for name in ("weight", "weight_v", "weight_orig"):
        weight = held.get(name)
        if weight is not None:
            yield weight


def _read(root: nn.Module, graph: fx.Graph, verdicts: Verdicts, whole: bool) -> None:
    """What a trace says of each weight; out of the whole model is elsewhere, out of a part is unknown."""
    here: Verdicts = {}
    seen: set[int] = set()
    for node in graph.nodes:
        if node.op == "call_module":
            layer = root.get_submodule(str(node.target))
            if isinstance(layer, WEIGHTED):
                seen.add(id(layer))
                _record(layer, here, *fate(node, root))
        elif node.op == "get_attr":
            path, _, attribute = str(node.target).rpartition(".")
            owner = root.get_submodule(path)
            weight = getattr(owner, attribute, None)
            if isinstance(weight, nn.Parameter) and weight.ndim >= 2:
                seen.add(id(owner))
                here.setdefault(id(weight), set()).update(fate(node, root, weight=True))
    for layer in root.modules():  # unused, or inside one of torch's own blocks
        if isinstance(layer, WEIGHTED) and id(layer) not in seen:
            _record(layer, here, False)
    for key, found in here.items():
        verdicts.setdefault(key, set()).update(False if whole and one is None else one for one in found)


def _chain(sequential: nn.Sequential, verdicts: Verdicts, whole: bool) -> Iterable[nn.Module]:
    """Judge the weighted layers of a Sequential by what comes next; return its other children."""
    steps = list(_flat(sequential))
    for position, step in enumerate(steps):
        if isinstance(step, WEIGHTED):
            behind = (later for later in steps[position + 1 :] if not keeps_scale(later))
            after = next(behind, None)
            if after is None:
                _record(step, verdicts, False if whole else None)
            else:
                _record(step, verdicts, normalises(after))
    return [step for step in steps if not isinstance(step, WEIGHTED)]


def _flat(sequential: nn.Sequential) -> Iterator[nn.Module]:
    for child in sequential:
        if isinstance(child, nn.Sequential) and type(child).forward is nn.Sequential.forward:
            yield from _flat(child)
        else:
            yield child
