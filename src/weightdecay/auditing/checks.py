"""What an audit can find: a function for each code, and the one list of codes, severities and titles.

Each function takes the `State` and yields drafts. A new finding is a function, an entry in `CHECKS`, and its
page in `docs/audit` in both languages: titles, order and the index of the pages come from the list.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn, optim
from torch._subclasses.fake_tensor import FakeTensor

from weightdecay.auditing.state import LOST, Held, Pace, Place, State, as_number, defaults, is_flat
from weightdecay.errors import Finding, Severity
from weightdecay.groups.assignment import PRESETS
from weightdecay.groups.before_norm import replica
from weightdecay.text import Text, chinese, chinese_of
from weightdecay.units.halflife import FLOORS, OFF, oscillates_from


@dataclass(frozen=True)
class Draft:
    """What a check found; names may still be taken out of it.

    Drafts of one code with one message become one finding, unless they stand apart.

    Args:
        names: of the parameters concerned; empty where it is the whole.
        message: what, with the numbers, as `counted` takes it.
        fix: what to do.
        severity: None is the check's own.
        apart: another draft of this message is another finding.
    """

    names: tuple[str, ...]
    message: Text
    fix: Text
    severity: Severity | None = None
    apart: bool = False


_WEIGHTS = ("matrix", "convolution", "head")
_GROUPS = Text(
    "wd.param_groups(model, weight_decay=...) makes groups by role",
    "wd.param_groups(model, weight_decay=...) 按角色分组",
)
_BY_ROLE = Text(f"{_GROUPS}; or say groups='all'", f"{_GROUPS.zh}；若有意如此，用 groups='all'")


def normalization(state: State) -> Iterator[Draft]:
    """WD101."""
    for held in state.decaying:
        if held.role == "normalization" and held.wanted == 0:
            message = Text("{n} parameter{|s} of normalisations decay{s|}", "{n} 个归一化层的参数在衰减")
            yield Draft((held.name,), message, _BY_ROLE)


def bias(state: State) -> Iterator[Draft]:
    """WD102."""
    for held in state.decaying:
        if held.role == "bias" and held.wanted == 0:
            yield Draft((held.name,), Text("{n} bias{|es} decay{s|}", "{n} 个偏置在衰减"), _BY_ROLE)


def undecayed_weight(state: State) -> Iterator[Draft]:
    """WD103."""
    if not state.by_pull:
        return  # no decay at all is a choice
    for role in _WEIGHTS:
        left: list[str] = []
        others = Text("parameters of other roles do", "其他角色的参数却在衰减")
        for held in state.trained:
            if held.role == role and (held.wanted or 0) > 0:
                if held.pulls:
                    others = Text("others of this role do", "同一角色的其他参数却在衰减")
                else:
                    left.append(held.name)
        if left:
            message = Text(
                f"{{n}} {role} parameter{{|s}} do{{es|}} not decay, and {others}",
                f"{{n}} 个 {role} 参数不衰减，{others.zh}",
            )
            fix = Text(
                f"{_GROUPS}; or ignore what is left out on purpose",
                f"{_GROUPS.zh}；若有意不衰减，用 ignore 忽略",
            )
            yield Draft(tuple(left), message, fix)


def split_role(state: State) -> Iterator[Draft]:
    """WD104: one role of one optimizer, of which some decay and some do not, and nothing says why."""
    parts: dict[tuple[int, str], tuple[list[str], list[str]]] = {}
    for held in state.trained:
        alone = len(held.places) == 1 and held.candidate.exempt is None
        if alone and held.wanted != 0 and held.role != "other" and not _is_named_group(state, held.places[0]):
            decaying, left = parts.setdefault((held.places[0].optimizer, held.role), ([], []))
            (decaying if held.pulls else left).append(held.name)
    for (o, role), (decaying, left) in parts.items():
        if decaying and left:
            others, title = len(decaying), state.titles[o]
            message = Text(
                f"{{n}} {role} parameter{{|s}} do{{es|}} not decay, unlike the other {others} of {title}",
                f"{{n}} 个 {role} 参数不衰减，而 {title.zh} 的其余 {others} 个在衰减",
            )
            fix = Text(
                "decide by role, not by words in names; write an exception as a group of its own",
                "按角色而不是按名字里的词来决定；例外单独成一组",
            )
            yield Draft(tuple(left), message, fix)


_USUAL_LABELS = {group.label for groups in PRESETS.values() for group in groups}


def _is_named_group(state: State, place: Place) -> bool:
    """Whether the group of a parameter has a name that somebody wrote for it."""
    label = (place.assignment and place.assignment.label) or state.group(place).get("name")
    return (
        label is not None and re.sub(r" \(\d+\)$|, exempt by the model$", "", str(label)) not in _USUAL_LABELS
    )


def embedding(state: State) -> Iterator[Draft]:
    """WD105."""
    names, untouched, rows = [], 0, 0
    for held in state.decaying:
        if held.role == "embedding":
            without = _rows_without_gradient(held.parameter)
            if without == 0:
                continue
            names.append(held.name)
            if without is not None:
                untouched, rows = untouched + without, rows + held.parameter.shape[0]
    if names:
        seen = Text("", "")
        if rows:
            seen = Text(
                f" (now {untouched:,} of {rows:,} rows)", f"（目前 {rows:,} 行中的 {untouched:,} 行）"
            )
        message = Text(
            f"{{n}} embedding{{|s}} decay{{s|}}, rows without gradient{seen} as well",
            f"{{n}} 个嵌入在衰减，没有梯度的行{seen.zh}也在衰减",
        )
        fix = Text(
            "leave embeddings out, or accept it for rare tokens", "不让嵌入衰减；或接受罕见词元因此衰减"
        )
        yield Draft(tuple(names), message, fix)


@torch.no_grad()
def _rows_without_gradient(parameter: Tensor) -> int | None:
    """Return how many rows of the gradient are zero; None where there is none to look at."""
    gradient = parameter.grad
    if gradient is None or gradient.is_sparse or gradient.is_meta or hasattr(gradient, "_local_tensor"):
        return None
    return int((gradient == 0).flatten(1).all(1).sum())


def adapter(state: State) -> Iterator[Draft]:
    """WD106."""
    inside, tried = adapter_parameters(state), None
    for held in state.decaying:
        if id(held.parameter) not in inside:
            continue
        if tried is None:
            tried = _tried_layers(state.model)
        if tried.get(id(held.parameter), bool(_MULTIPLIER.search(held.name))):
            message = Text(
                "{n} parameter{|s} of adapters decay{s|} away from the base model: at 0 {it leaves|they "
                "leave} nothing of a layer's output",
                "{n} 个适配器参数的衰减使模型偏离基础模型：参数为 0 时，该层的输出完全消失",
            )
            fix = Text(
                "give strength 0; or wd.attach wd.Toward, which pulls to where they started",
                "把强度设为 0；或用 wd.attach 挂上 wd.Toward，它把参数拉回起点",
            )
            yield Draft((held.name,), message, fix, "warning")
        else:
            message = Text(
                "{n} parameter{|s} of adapters decay{s|}: that pulls to the base model, not to zero",
                "{n} 个适配器参数在衰减：这是拉向基础模型，而不是拉向零",
            )
            fix = Text(
                "keep it if that is meant; else give adapters strength 0",
                "若有意如此则保留；否则把适配器的强度设为 0",
            )
            yield Draft((held.name,), message, fix)


_ADAPTER = re.compile(
    r"(^|[._])lora_?(embedding_)?(a|b|down|up|magnitude_vector)($|[._])"
    r"|(^|\.)((hada|lokr)_w\d|ia3_l|boft_s|road_alpha)",
    re.I,
)
# Neutral at 1 or at the base weights' norms, not at 0: for layers that cannot be tried.
_MULTIPLIER = re.compile(r"(^|[._])(ia3_l|boft_s|lora_magnitude_vector|road_alpha)($|[._])")


def adapter_parameters(state: State) -> set[int]:
    """Return identities of what adapters added: those of peft by their class, others by their names."""
    inside: set[int] = set()
    for held in state.held:
        if _ADAPTER.search(held.name):
            inside.add(id(held.parameter))
    for layer in _peft_layers(state.model):
        inside.update(map(id, _added(layer).values()))
    return inside


def _peft_layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers that peft has put around others."""
    for module in model.modules():
        for kind in type(module).__mro__:
            if kind.__name__ == "BaseTunerLayer":
                yield module
                break


def _added(layer: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that peft added to a layer, without those of the layer it wraps."""
    return {name: p for name, p in layer.named_parameters() if not name.startswith("base_layer.")}


def _tried_layers(model: nn.Module) -> dict[int, bool]:
    """Whether each parameter of peft's linear layers, set to 0, takes the layer's output from the base's."""
    known: dict[Any, dict[str, bool]] = {}
    tried: dict[int, bool] = {}
    for layer in _peft_layers(model):
        added = _added(layer)
        key = type(layer), tuple((name, tuple(p.shape)) for name, p in added.items())
        if key not in known:
            known[key] = _tried(layer, tuple(added))
        tried |= {id(added[name]): away for name, away in known[key].items()}
    return tried


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


def exempt(state: State) -> Iterator[Draft]:
    """WD107."""
    for held in state.decaying:
        reason, decided = held.candidate.exempt, held.places[0].assignment
        if reason is None or (held.wanted or 0) > 0:
            continue
        if decided is not None and "although the model exempts it" in decided.reason:
            continue
        why = reason.removeprefix("the model exempts it: ")
        if isinstance(reason, Text):
            why = Text(why, reason.zh.removeprefix("模型要求豁免："))
        message = Text(
            f"{{n}} parameter{{|s}} decay{{s|}} although the model exempts {{it|them}} ({why})",
            f"{{n}} 个参数在衰减，尽管模型要求豁免（{chinese(why)}）",
        )
        fix = Text(
            "wd.param_groups heeds the model; to overrule it, Group(force=True)",
            "wd.param_groups 会遵从模型；若要强制衰减，用 Group(force=True)",
        )
        yield Draft((held.name,), message, fix)


def unwanted(state: State) -> Iterator[Draft]:
    """WD108: what should not decay and has no code of its own, by role."""
    adapters = adapter_parameters(state)
    for held in state.decaying:
        if held.wanted != 0 or held.role in ("normalization", "bias", "embedding"):
            continue
        if held.candidate.exempt is not None or id(held.parameter) in adapters:
            continue
        if held.role == "other":
            message = Text(
                "{n} parameter{|s} that {is|are} no weight matri{x|ces} decay{s|}",
                "{n} 个不是权重矩阵的参数在衰减",
            )
            yield Draft((held.name,), message, _BY_ROLE)
        else:
            message = Text(
                f"{{n}} {held.role} parameter{{|s}} decay{{s|}} and should not, by the groups of the audit",
                f"{{n}} 个 {held.role} 参数在衰减，而按审计的分组不应衰减",
            )
            fix = Text(
                "give the optimizer these groups, or the audit those of the optimizer",
                "让优化器采用审计的分组，或让审计采用优化器的分组",
            )
            yield Draft((held.name,), message, fix)


def in_no_optimizer(state: State) -> Iterator[Draft]:
    """WD201."""
    for held in state.held:
        if held.parameter.requires_grad and not held.places:
            message = Text(
                "{n} parameter{|s} require{s|} a gradient and no optimizer has {it|them}",
                "{n} 个参数需要梯度，却不在任何优化器里",
            )
            fix = Text(
                "give them to an optimizer, or requires_grad_(False)",
                "交给一个优化器，或 requires_grad_(False)",
            )
            yield Draft((held.name,), message, fix)


def repeated(state: State) -> Iterator[Draft]:
    """WD202."""
    for held in state.held:
        times = len(held.places)
        if times > 1:
            titles = list(dict.fromkeys([state.titles[place.optimizer] for place in held.places]))
            where = Text(" and ".join(titles), " 和 ".join(chinese_of(titles)))
            how = Text(f"in {where}", f"同时在 {where.zh} 里")
            if len(titles) == 1:
                how = Text(f"{times} times in {where}", f"在 {where.zh} 里出现 {times} 次")
            message = Text(
                f"{{n}} parameter{{|s}} {{is|are}} {how}: updated and decayed {times} times a step",
                f"{{n}} 个参数{how.zh}：每步更新并衰减 {times} 次",
            )
            fix = Text(
                "give each parameter once: wd.split(model, {...})", "每个参数只给一次：wd.split(model, {...})"
            )
            yield Draft((held.name,), message, fix)


def strange(state: State) -> Iterator[Draft]:
    """WD203."""
    by_optimizer: dict[int, list[str]] = {}
    for place, name in state.strange:
        by_optimizer.setdefault(place.optimizer, []).append(name)
    for o, names in sorted(by_optimizer.items()):
        title = state.titles[o]
        message = Text(
            f"{{n}} parameter{{|s}} of {title} {{is|are}} not in the model",
            f"{title.zh} 的 {{n}} 个参数不属于模型",
        )
        fix = Text(
            "make the optimizer last, from this model; of several models give an nn.ModuleList",
            "最后再用这个模型创建优化器；有多个模型时给一个 nn.ModuleList",
        )
        yield Draft(tuple(names), message, fix)


def two_strengths(state: State) -> Iterator[Draft]:
    """WD204."""
    for held in state.held:
        if shown := _several_strengths([held]):
            message = Text(f"one parameter under the strengths {shown}", f"同一个参数有几种强度：{shown.zh}")
            fix = Text("one decision for a tied weight", "共享的权重只能有一个决定")
            yield Draft((held.name,), message, fix, apart=True)
    for several in _over_one_memory(state):
        if shown := _several_strengths(_updated(several)):
            message = Text(
                f"parameters over one memory under the strengths {shown}",
                f"共用一块内存的参数有几种强度：{shown.zh}",
            )
            yield Draft(tuple(held.name for held in several), message, _TIE, apart=True)


_TIE = Text(
    "tie them by assigning the parameter itself: head.weight = embedding.weight",
    "通过赋值参数本身来共享：head.weight = embedding.weight",
)


def _several_strengths(several: Sequence[Held]) -> Text | None:
    """Return the strengths under which parameters are that are one, in words; None if there is but one."""
    strengths: set[float] = set()
    for held in several:
        for place in held.places:
            strengths.add(place.weight_decay)
    values = [f"{value:g}" for value in sorted(strengths)]
    return Text(" and ".join(values), " 和 ".join(values)) if len(values) > 1 else None


def _updated(several: Sequence[Held]) -> list[Held]:
    """Return those that are updated, if they are two or more."""
    updated = [held for held in several if held.places and held.moves]
    return updated if len(updated) > 1 else []


def _over_one_memory(state: State) -> Iterator[list[Held]]:
    """Yield parameters whose elements overlap, together."""
    by_storage: dict[int, list[tuple[int, int, int]]] = {}
    for k, held in enumerate(state.held):
        tensor = _local(held.parameter)
        if (reach := _reach(tensor)) is not None:
            by_storage.setdefault(tensor.untyped_storage()._cdata, []).append((*reach, k))
    overlapping: list[list[int]] = []
    for spans in by_storage.values():
        if len(spans) == 1:
            continue
        reached, together = 0, []
        for start, end, k in sorted(spans):
            if start >= reached:
                together = []
                overlapping.append(together)
            together.append(k)
            reached = max(reached, end)
    for together in overlapping:
        if len(together) > 1:
            yield [state.held[k] for k in sorted(together)]


def _local(parameter: Tensor) -> Tensor:
    """Return the part that lies here, of a parameter that is sharded."""
    return getattr(parameter, "_local_tensor", parameter)


def _reach(tensor: Tensor) -> tuple[int, int] | None:
    """Return the first byte and the end of a tensor that fills the memory between them; else None."""
    if tensor.layout != torch.strided or tensor.numel() == 0:
        return None
    extent = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        extent += (size - 1) * stride
    if extent != tensor.numel():
        return None  # columns of a larger tensor: the memory between belongs to others
    start = int(tensor.storage_offset()) * tensor.element_size()
    return start, start + int(extent) * tensor.element_size()


def flattened(state: State) -> Iterator[Draft]:
    """WD205."""
    for held in state.held:
        if is_flat(held.parameter):
            message = Text(
                "{n} parameter{ is|s are} several tensors laid into one: names and shapes are lost",
                "{n} 个参数由多个张量压平合并而成：名字和形状都丢失了",
            )
            fix = Text(
                "shard with torch.distributed.fsdp.fully_shard, or use_orig_params=True",
                "用 torch.distributed.fsdp.fully_shard 分片，或 use_orig_params=True",
            )
            yield Draft((held.name,), message, fix)


def shared_memory(state: State) -> Iterator[Draft]:
    """WD206."""
    for several in _over_one_memory(state):
        if updated := _updated(several):
            count = len(updated)
            message = Text(
                f"{count} parameters share their memory, and each is updated",
                f"{count} 个参数共用一块内存，却各自更新",
            )
            yield Draft(tuple(held.name for held in several), message, _TIE, apart=True)


def frozen(state: State) -> Iterator[Draft]:
    """WD207: frozen after it had a gradient: an optimizer goes by the gradient, not by requires_grad."""
    for held in state.held:
        gradient = held.parameter.grad
        if held.parameter.requires_grad or gradient is None:
            continue
        places = [place for place in held.places if as_number(state.group(place).get("lr", 1.0)) != 0]
        reasons: list[Text] = []
        if any(place.applied for place in places):
            reasons.append(Text("decays", "在衰减"))
        if any(_coasts(state, held, place) for place in places):
            reasons.append(Text("coasts on its momentum", "随动量滑行"))
        if places and _any(gradient):
            reasons.append(Text("follows its last gradient", "沿最后的梯度移动"))
        if reasons:
            how = Text(" and ".join(reasons), "，".join(chinese_of(reasons)))
            message = Text(
                f"{{n}} frozen parameter{{|s}} still move{{s|}}: {{it|each}} {how}, as .grad is not None",
                f"{{n}} 个已冻结的参数仍在变动：{how.zh}，因为 .grad 不是 None",
            )
            fix = Text(
                "set .grad to None, as optimizer.zero_grad() does, or take it out of the optimizer",
                "把 .grad 设为 None（如 optimizer.zero_grad() 所做），或把它移出优化器",
            )
            yield Draft((held.name,), message, fix)


def _coasts(state: State, held: Held, place: Place) -> bool:
    """Whether the optimizer's state has something of the parameter's size that is not 0."""
    kept = state.optimizers[place.optimizer].state.get(held.parameter, {})
    return any(
        isinstance(value, Tensor) and value.shape == held.parameter.shape and value.ndim and _any(value)
        for value in kept.values()
    )


@torch.no_grad()
def _any(tensor: Tensor) -> bool:
    """Whether an element is not 0; taken for granted where values cannot be read."""
    local = _local(tensor)
    if local.is_meta or local.layout != torch.strided:
        return True
    return bool(torch.count_nonzero(local))


def divided_by_the_gradient(state: State) -> Iterator[Draft]:
    """WD301."""
    for (pull, o), names in state.by_pull.items():
        if pull.form == "sign-normalised":
            who = state.titles[o]
            if pull.attached:
                who = Text(f"{pull.by} on {who}", f"{who.zh} 上的 {pull.by}")
            message = Text(
                f"{who} decays {{n}} parameter{{|s}} through the gradient and divides by its size: "
                f"weight_decay = {pull.weight_decay:g} has no rate",
                f"{who.zh} 经由梯度使 {{n}} 个参数衰减，又除以梯度的大小："
                f"weight_decay = {pull.weight_decay:g} 没有确定的衰减率",
            )
            fix = Text(
                "use a decoupled form: AdamW, decoupled_weight_decay=True, or wd.attach a rule",
                "改用解耦的形式：AdamW、decoupled_weight_decay=True，或用 wd.attach 挂上规则",
            )
            yield Draft(tuple(names), message, fix, apart=True)


def twice(state: State) -> Iterator[Draft]:
    """WD302."""
    for held in state.held:
        for place in held.places:
            own, *others = place.pulls or (None,)
            if own is not None and not own.attached and others:
                title, value = state.titles[place.optimizer], own.weight_decay
                other = others[0].by
                message = Text(
                    f"{{n}} parameter{{|s}} decay{{s|}} twice: by {title}'s own weight_decay = {value:g} "
                    f"and {other}",
                    f"{{n}} 个参数衰减了两次：{title.zh} 自己的 weight_decay = {value:g} 和 {other}",
                )
                fix = Text(
                    "set the groups' weight_decay to 0, or detach the rule",
                    "把各组的 weight_decay 设为 0，或取下规则",
                )
                yield Draft((held.name,), message, fix)


def by_default(state: State) -> Iterator[Draft]:
    """WD303: a strength that is the class's own default in every group, where no rule is attached."""
    for o, optimizer in enumerate(state.optimizers):
        if state.decays[o].rules or not (default := class_default(optimizer)):
            continue
        chosen = not optimizer.param_groups
        for group in optimizer.param_groups:
            chosen |= as_number(group.get("weight_decay")) != default or _has_its_own(optimizer, group)
        if not chosen:
            kind = type(optimizer).__name__
            message = Text(
                f"weight_decay = {default:g} is {kind}'s default, in every group: was it chosen?",
                f"所有组的 weight_decay = {default:g} 都是 {kind} 的默认值：是有意选的吗？",
            )
            fix = Text(
                "say the number: wd.param_groups(model, weight_decay=...)",
                "写明这个数：wd.param_groups(model, weight_decay=...)",
            )
            yield Draft(state.names_in(o), message, fix, apart=True)


def class_default(optimizer: optim.Optimizer) -> float | None:
    """Return the `weight_decay` that a class has when nobody says anything; None if it takes none."""
    try:
        parameter = inspect.signature(type(optimizer)).parameters.get("weight_decay")
    except (TypeError, ValueError):
        return None
    return None if parameter is None or parameter.default is parameter.empty else as_number(parameter.default)


def _has_its_own(optimizer: optim.Optimizer, group: Mapping[str, Any]) -> bool:
    """Whether a group came with a strength of its own, whatever the number.

    torch adds what a group does not say from the defaults, in their order: a strength that stands before an
    option that comes earlier there was in the group already.
    """
    order, built = list(group), list(defaults(optimizer))
    if "weight_decay" not in order or "weight_decay" not in built:
        return False
    after = order[order.index("weight_decay") + 1 :]
    return not set(after).isdisjoint(built[: built.index("weight_decay")])


def not_applied(state: State) -> Iterator[Draft]:
    """WD304."""
    for (pull, o), names in state.by_pull.items():
        if pull.form == "none":
            title, because = state.titles[o], _because(pull.why)
            message = Text(
                f"{title} has weight_decay = {pull.weight_decay:g} for {{n}} parameter{{|s}}, and applies "
                f"none{because}",
                f"{title.zh} 对 {{n}} 个参数设了 weight_decay = {pull.weight_decay:g}，"
                f"却没有任何衰减{because.zh}",
            )
            fix = Text(
                "use another implementation, or weight_decay=0 and wd.attach(optimizer, wd.Decoupled(...))",
                "换一个实现，或用 weight_decay=0 加 wd.attach(optimizer, wd.Decoupled(...))",
            )
            yield Draft(tuple(names), message, fix, apart=True)


def _because(why: str) -> Text:
    """What a probe saw, in brackets."""
    return Text(f" ({why})", f"（{chinese(why)}）") if why else Text("", "")


def unusual_form(state: State) -> Iterator[Draft]:
    """WD305."""
    for (pull, o), names in state.by_pull.items():
        title, strength = state.titles[o], f"weight_decay = {pull.weight_decay:g}"
        if pull.form == "unknown" and not pull.wrong:
            because = _because(pull.why)
            message = Text(
                f"it is not known how {title} applies {strength}{because}",
                f"不清楚 {title.zh} 如何使用 {strength}{because.zh}",
            )
            fix = Text(
                "see wd.probe; or weight_decay=0 and wd.attach a rule",
                "参见 wd.probe；或用 weight_decay=0 并以 wd.attach 挂上规则",
            )
            yield Draft(tuple(names), message, fix, apart=True)
        elif pull.form == "independent" and not pull.attached and _follows_a_schedule(state, o):
            message = Text(
                f"the decay of {title} does not follow lr: {strength} goes on as lr falls by its schedule",
                f"{title.zh} 的衰减不随 lr 变化：lr 按调度下降时 {strength} 依旧",
            )
            fix = Text(
                "schedule the strength too, or use a decay that follows lr",
                "给强度也加上调度，或改用随 lr 变化的衰减",
            )
            yield Draft(tuple(names), message, fix, apart=True)
    yield from _probed(state, "WD305")


def _follows_a_schedule(state: State, o: int) -> bool:
    return any(row.max() > row.min() for key, row in state.rates.rows.items() if key[0] == o)


def other_meaning(state: State) -> Iterator[Draft]:
    """WD306."""
    yield from _probed(state, "WD306")


def mixed_up_groups(state: State) -> Iterator[Draft]:
    """WD307."""
    yield from _probed(state, "WD307")


def _probed(state: State, code: str) -> Iterator[Draft]:
    """What a probe found wrong, once for all parameters of an optimizer."""
    names: dict[Any, dict[str, None]] = {}
    for (pull, o), alike in state.by_pull.items():
        for finding in pull.wrong:
            if finding.code == code:
                about = state.names_in(o) if code == "WD307" else alike
                names.setdefault((o, finding), {}).update(dict.fromkeys(about))
    for (_, finding), about in names.items():
        message, fix = (
            text if isinstance(text, Text) else Text(text, text) for text in (finding.message, finding.fix)
        )
        yield Draft(tuple(about), message, fix, finding.severity, apart=True)


def overshoot(state: State) -> Iterator[Draft]:
    """WD401."""
    for pace in state.paces:
        if pace.overshoots:
            limit = pace.pull.limit
            at, most = _at(pace), f"{pace.pull.weight_decay * limit / pace.removed:.3g}"
            message = Text(
                f"{at} takes {pace.removed:.3g} of a weight in a step; {limit:.3g} is too much",
                f"{at.zh}，一步去掉权重的 {pace.removed:.3g}；达到 {limit:.3g} 就过头了",
            )
            fix = Text(f"give less than {most}", f"请取小于 {most} 的值")
            yield Draft(pace.names, message, fix)


def _at(pace: Pace) -> Text:
    strength = f"weight_decay = {pace.pull.weight_decay:g}"
    return Text(f"{strength} at lr = {pace.lr:g}", f"lr = {pace.lr:g} 时 {strength}")


def below_precision(state: State) -> Iterator[Draft]:
    """WD402."""
    wider = Text(
        'keep the weights in a wider type, or wd.attach(..., rounding="stochastic")',
        '用更宽的类型保存权重，或 wd.attach(..., rounding="stochastic")',
    )
    for pace in state.paces:
        off = abs(pace.rounded - 1)
        if pace.lost > LOST:
            at, dtype, removed, floor = (
                _at(pace),
                pace.dtype,
                f"{pace.removed:.3g}",
                f"{FLOORS[pace.dtype]:.3g}",
            )
            steps = Text("", "全部")
            if pace.lost_steps < 1:
                share, decay = f"{pace.lost_steps:.0%}", f"{pace.lost:.0%}"
                steps = Text(
                    f" in {share} of the steps, with {decay} of the decay",
                    f"在 {share} 的步里（占衰减的 {decay}）",
                )
            message = Text(
                f"{at} is lost in {dtype}{steps}: a step takes {removed} at most, and up to a rate of "
                f"{floor} p·(1 - rate) is p again",
                f"{at.zh}，衰减在 {dtype} 里{steps.zh}因舍入丢失：一步至多去掉 {removed}，"
                f"而衰减率不超过 {floor} 时 p·(1 - rate) 仍等于 p",
            )
            yield Draft(pace.names, message, wider)
        elif off > OFF:
            at, dtype, removed, times = _at(pace), pace.dtype, f"{pace.removed:.3g}", f"{pace.rounded:.2f}"
            message = Text(
                f"{at} is quantised in {dtype}: about {times} times the decay happens, since p·(1 - rate) is "
                f"rounded to the nearest number and a step takes {removed} at most",
                f"{at.zh}，衰减在 {dtype} 里被量化：实际衰减约为应有的 {times} 倍，因为 p·(1 - rate) "
                f"舍入到最近的数，而一步至多去掉 {removed}",
            )
            yield Draft(pace.names, message, wider, "warning" if off > 0.2 else "info")


def next_to_nothing(state: State) -> Iterator[Draft]:
    """WD403."""
    for pace in state.paces:
        if pace.kept is not None and pace.kept > 0.9:
            at, kept, steps = _at(pace), f"{pace.kept:.3g}", f"{state.rates.steps:,}"
            message = Text(
                f"{at} leaves {kept} of the initial weights after {steps} steps: next to nothing",
                f"{at.zh}，{steps} 步之后初始权重还剩 {kept}：几乎没有衰减",
            )
            fix = Text(
                "give wd.HalfLives(...) per run, or more", "改用每次训练 wd.HalfLives(...)，或取更大的值"
            )
            yield Draft(pace.names, message, fix)


def faster_than_an_epoch(state: State) -> Iterator[Draft]:
    """WD404."""
    epoch = state.steps_per_epoch
    for pace in state.paces:
        tau = pace.timescale
        if tau is not None and (tau < 10 or (epoch is not None and tau < epoch)):
            at, scale = _at(pace), f"{tau:.4g}"
            than = Text("10 steps", " 10 步")
            if tau >= 10:
                than = Text(f"an epoch of {epoch:g}", f"一轮的 {epoch:g} 步")
            message = Text(
                f"{at} has a timescale 1/rate of {scale} steps, less than {than}",
                f"{at.zh}，时间尺度 1/rate 为 {scale} 步，短于{than.zh}",
            )
            fix = Text("give less, or a half-life in epochs", "取更小的值，或以轮为单位给半衰期")
            yield Draft(pace.names, message, fix)


def slower_than_the_run(state: State) -> Iterator[Draft]:
    """WD405."""
    steps = state.rates.steps
    for pace in state.paces:
        if pace.timescale is None or pace.kept is None or steps is None:
            continue
        if pace.kept <= 0.9 and pace.timescale > steps:
            at, scale, run = _at(pace), f"{pace.timescale:.4g}", f"{steps:,}"
            message = Text(
                f"{at} has a timescale of {scale} steps, more than the run of {run}",
                f"{at.zh}，时间尺度为 {scale} 步，长于整个训练的 {run} 步",
            )
            fix = Text("keep it if that is meant; else give more", "若有意如此则保留；否则取更大的值")
            yield Draft(pace.names, message, fix)


def oscillation(state: State) -> Iterator[Draft]:
    """WD406."""
    for pace in state.paces:
        momentum = pace.pull.momentum
        if momentum is None or pace.overshoots:
            continue
        limit = oscillates_from(momentum[0], momentum[2])
        if pace.removed > limit:
            at, removed, most = _at(pace), f"{pace.removed:.3g}", f"{limit:.3g}"
            least = f"{pace.pull.weight_decay * limit / pace.removed:.3g}"
            message = Text(
                f"{at} oscillates: lr·wd·(1 - dampening) = {removed}, and at most {most} does not at "
                f"momentum = {momentum[0]:g}",
                f"{at.zh}，衰减在振荡：lr·wd·(1 - dampening) = {removed}，"
                f"而 momentum = {momentum[0]:g} 时不超过 {most} 才不振荡",
            )
            fix = Text(
                f"give less than {least}, or decoupled decay", f"请取小于 {least} 的值，或用解耦的衰减"
            )
            yield Draft(pace.names, message, fix)


def sparse_gradient(state: State) -> Iterator[Draft]:
    """WD501."""
    for held in state.held:
        gradient = held.parameter.grad
        sparse = gradient is not None and gradient.is_sparse
        for owner in held.candidate.owners:
            sparse |= isinstance(owner, (nn.Embedding, nn.EmbeddingBag)) and owner.sparse
        if sparse and not all(pull.sparse for pull in held.pulls):
            message = Text(
                "{n} decaying parameter{ has a sparse gradient|s have sparse gradients}: the step will raise",
                "{n} 个在衰减的参数有稀疏梯度：step 会报错",
            )
            fix = Text(
                "leave them out of the decay, attach wd.Decoupled instead, or build with sparse=False",
                "不让它们衰减，改为挂上 wd.Decoupled，或用 sparse=False 构造",
            )
            yield Draft((held.name,), message, fix)


def gradient_scaler(state: State) -> Iterator[Draft]:
    """WD502."""
    if state.scaler is None:
        return
    if not state.scaler.is_enabled():
        message = Text(
            "the gradient scaler is switched off: nothing is scaled and no step skipped",
            "梯度缩放器已关闭：既不缩放，也不跳过任何一步",
        )
        fix = Text("leave it out, or GradScaler(enabled=True)", "去掉它，或 GradScaler(enabled=True)")
        yield Draft((), message, fix, "info")
        return
    trained = [held for held in state.held if held.parameter.requires_grad and held.places]
    for held in trained:
        if held.parameter.dtype == torch.float16:
            message = Text(
                "{n} parameter{ is|s are} float16: the scaler refuses to unscale float16 gradients",
                "{n} 个参数是 float16：缩放器拒绝对 float16 梯度反缩放",
            )
            fix = Text("keep float32 weights and use autocast", "权重保持 float32，并使用 autocast")
            yield Draft((held.name,), message, fix)
    for held in trained:
        if held.parameter.dtype == torch.bfloat16:
            message = Text(
                "{n} parameter{ is|s are} bfloat16, whose gradients need no scaler; "
                "skipped steps do not decay",
                "{n} 个参数是 bfloat16，其梯度不需要缩放器；被跳过的步不衰减",
            )
            yield Draft((held.name,), message, Text("leave the scaler out", "去掉缩放器"), "info")
    for o, optimizer in enumerate(state.optimizers):
        if isinstance(optimizer, optim.LBFGS):
            title = state.titles[o]
            message = Text(
                f"{title} needs a closure, and a scaler's step takes none",
                f"{title.zh} 需要闭包，而缩放器的 step 不接受闭包",
            )
            yield Draft((), message, Text("train without a scaler", "不用缩放器训练"))


# Options that say in which form an optimizer decays, and that its state dict brings along.
_FLAGS = ("decoupled_weight_decay", "weight_decouple", "fixed_decay")


def changed_flag(state: State) -> Iterator[Draft]:
    """WD503: groups whose form is not the one that the optimizer was built with."""
    for o, optimizer in enumerate(state.optimizers):
        for flag in _FLAGS:
            built = defaults(optimizer).get(flag)
            if not isinstance(built, bool):
                continue
            names: list[str] = []
            for g, group in enumerate(optimizer.param_groups):
                decays = as_number(group.get("weight_decay")) and g not in state.decays[o].native
                if decays and bool(group.get(flag, built)) != built:
                    names += state.names_in(o, {g})
            if names:
                title, now = state.titles[o], not built
                message = Text(
                    f"{title} was built with {flag} = {built}, and for {{n}} parameter{{|s}} the "
                    f"group says {now}: a state dict of another class brought its own",
                    f"{title.zh} 构造时 {flag} = {built}，而 {{n}} 个参数所在的组为 {now}："
                    "载入了另一个类的 state dict",
                )
                fix = Text(
                    f"build the class that made the checkpoint, or set the groups' {flag} after loading",
                    f"构造写出该检查点的类，或在载入之后设置各组的 {flag}",
                )
                yield Draft(tuple(names), message, fix)


def not_a_number(state: State) -> Iterator[Draft]:
    """WD504."""
    counts = _not_finite(state.held)
    if counts:
        total = sum(counts.values())
        shown = ", ".join(f"{name} {count:,}" for name, count in list(counts.items())[:3])
        more = ", ..." if len(counts) > 3 else ""
        message = Text(
            f"{{n}} parameter{{|s}} {{has|have}} {total:,} elements that are NaN or infinite ({shown}{more})",
            f"{{n}} 个参数里有 {total:,} 个元素是 NaN 或无穷大（{shown}{more}）",
        )
        fix = Text("go back to a checkpoint that is finite", "回到数值有限的检查点")
        yield Draft(tuple(counts), message, fix)


@torch.no_grad()
def _not_finite(parameters: Sequence[Held]) -> dict[str, int]:
    """Count the elements of each that are not finite, where there are any and values can be read."""
    sums: list[tuple[Held, Tensor]] = []
    for held in parameters:
        local = _local(held.parameter).detach()
        if (
            local.is_meta
            or local.layout != torch.strided
            or isinstance(local, FakeTensor)
            or local.element_size() == 1  # eight bits: a sum is not implemented
            or not (local.is_floating_point() or local.is_complex())
        ):
            continue
        # A sum is not finite if an element is not: a cheap first look (a sum may also overflow).
        sums.append((held, local.sum()))
    counts = {}
    for held, total in sums:
        if not bool(total.isfinite()) and (count := int((~_local(held.parameter).isfinite()).sum())):
            counts[held.name] = count
    return counts


def other_scheduler(state: State) -> Iterator[Draft]:
    """WD505."""
    for message, fix in state.rates.mismatches:
        yield Draft((), message, fix, apart=True)


def resumed_strength(state: State) -> Iterator[Draft]:
    """WD506: strengths none of which is the one that the optimizer was built with."""
    for o, optimizer in enumerate(state.optimizers):
        built = as_number(defaults(optimizer).get("weight_decay"))
        if not built or class_default(optimizer) in (None, built):
            continue  # nobody said one, except perhaps to the groups or to an optimizer inside
        strengths = {
            g: as_number(group.get("weight_decay"))
            for g, group in enumerate(optimizer.param_groups)
            if g not in state.decays[o].native
        }
        above = sorted(set(strengths.values()) - {0.0})
        if not above or built in above:
            continue
        names = state.names_in(o, {g for g, value in strengths.items() if value})
        values = ", ".join(f"{value:g}" for value in above)
        title = state.titles[o]
        message = Text(
            f"{title} was built with weight_decay = {built:g}, and its groups have {values}",
            f"{title.zh} 构造时 weight_decay = {built:g}，而各组现为 {values}",
        )
        fix = Text(
            "set the groups' weight_decay after loading a checkpoint",
            "载入检查点之后重新设置各组的 weight_decay",
        )
        yield Draft(names, message, fix)


def counted(message: str, n: int) -> Text:
    """Return a message for so many: "{n}" is the number, "{one|many}" the English word for it.

    >>> counted("{n} bias{|es} decay{s|}", 1), counted("{n} bias{|es} decay{s|}", 3)
    ('1 bias decays', '3 biases decay')
    """
    in_chinese = chinese(message).replace("{n}", f"{n:,}")
    shown, *parts = message.replace("{n}", f"{n:,}").split("{")
    for part in parts:
        words, _, rest = part.partition("}")
        one, _, many = words.partition("|")
        shown += (one if n == 1 else many) + rest
    return Text(shown, in_chinese)


@dataclass(frozen=True)
class Check:
    """What can look wrong.

    Args:
        code: stable; its page in the documentation has this name.
        severity: what it usually is; a single finding may be milder.
        title: a few words, as the page is called.
        find: yields what is wrong; None for what `audit_diff` finds.
    """

    code: str
    severity: Severity
    title: Text
    find: Callable[[State], Iterator[Draft]] | None

    def drafts(self, state: State) -> list[Draft]:
        """Return what is wrong in a state; drafts with one message are one, unless they stand apart."""
        together: dict[tuple[str, Severity | None], tuple[Draft, dict[str, None]]] = {}
        drafts: list[tuple[Draft, dict[str, None]]] = []
        for draft in self.find(state) if self.find else ():
            key: tuple[str, Severity | None] = draft.message, draft.severity
            names = dict.fromkeys(draft.names)
            if draft.apart or key not in together:
                drafts.append((draft, names))
                together[key] = drafts[-1]
            else:
                together[key][1].update(names)
        return [replace(draft, names=tuple(names)) for draft, names in drafts]

    def finding(self, draft: Draft, names: tuple[str, ...] | None = None) -> Finding:
        """Return the finding of a draft, about these names alone."""
        about = draft.names if names is None else names
        message = counted(draft.message, len(about))
        return Finding(self.code, draft.severity or self.severity, about, message, draft.fix)


# Within a severity, the costliest first: what ruins a run, what decays nothing or too much, what decays in
# another form or too little, a few parameters, and last what asks whether something was meant.
CHECKS = (
    Check("WD504", "error", Text("weights that are not numbers", "权重不是数"), not_a_number),
    Check("WD401", "error", Text("the decay overshoots", "衰减冲过了头"), overshoot),
    Check("WD501", "error", Text("a sparse gradient", "稀疏梯度"), sparse_gradient),
    Check(
        "WD306",
        "warning",
        Text("the decay is not what its strength means", "衰减与强度的含义不符"),
        other_meaning,
    ),
    Check("WD307", "error", Text("groups that are mixed up", "参数组被弄混了"), mixed_up_groups),
    Check("WD304", "error", Text("a decay that is not applied", "衰减没有发生"), not_applied),
    Check("WD201", "error", Text("a parameter in no optimizer", "参数不在任何优化器里"), in_no_optimizer),
    Check("WD202", "error", Text("a parameter more than once", "参数出现了不止一次"), repeated),
    Check("WD302", "error", Text("a parameter decays twice", "衰减了两次"), twice),
    Check(
        "WD203",
        "error",
        Text("a parameter that is not in the model", "优化器里的参数不属于模型"),
        strange,
    ),
    Check(
        "WD206",
        "error",
        Text("two parameters over the same memory", "两个参数共用一块内存"),
        shared_memory,
    ),
    Check(
        "WD204",
        "error",
        Text("tied weights with two strengths", "共享的权重有两种强度"),
        two_strengths,
    ),
    Check("WD503", "error", Text("a checkpoint changed the rule", "检查点改变了规则"), changed_flag),
    Check("WD402", "error", Text("below the precision of the weights", "低于权重的精度"), below_precision),
    Check("WD205", "error", Text("flattened parameters", "被压平的参数"), flattened),
    Check("WD601", "error", Text("the plan changed", "计划变了"), None),
    Check("WD404", "warning", Text("faster than an epoch", "比一个轮次还快"), faster_than_an_epoch),
    Check("WD406", "warning", Text("the decay oscillates", "衰减在振荡"), oscillation),
    Check(
        "WD301",
        "warning",
        Text("coupled decay in an adaptive optimizer", "自适应优化器里的耦合衰减"),
        divided_by_the_gradient,
    ),
    Check("WD103", "warning", Text("a weight matrix does not decay", "权重矩阵不衰减"), undecayed_weight),
    Check("WD104", "warning", Text("one role, several strengths", "同一角色，几种强度"), split_role),
    Check("WD506", "warning", Text("resumed with another strength", "恢复后强度变了"), resumed_strength),
    Check(
        "WD505",
        "warning",
        Text("a scheduler of another optimizer", "调度器属于另一个优化器"),
        other_scheduler,
    ),
    Check("WD502", "warning", Text("the gradient scaler", "梯度缩放器"), gradient_scaler),
    Check("WD207", "warning", Text("frozen, and still moving", "已冻结，却还在动"), frozen),
    Check("WD106", "info", Text("an adapter decays", "适配器在衰减"), adapter),
    Check("WD107", "warning", Text("exempt, but decays", "模型要求豁免，却在衰减"), exempt),
    Check("WD101", "warning", Text("a normalisation decays", "归一化层在衰减"), normalization),
    Check("WD102", "warning", Text("a bias decays", "偏置在衰减"), bias),
    Check("WD108", "warning", Text("a parameter that should not decay", "不该衰减的参数"), unwanted),
    Check("WD303", "warning", Text("a strength nobody chose", "没有人选过的强度"), by_default),
    Check(
        "WD305",
        "info",
        Text("the form of the decay is unusual or unknown", "衰减的形式不常见或不清楚"),
        unusual_form,
    ),
    Check("WD405", "info", Text("slower than the run", "比整个训练还慢"), slower_than_the_run),
    Check(
        "WD105",
        "info",
        Text("an embedding decays without gradient", "嵌入在没有梯度时也衰减"),
        embedding,
    ),
    Check("WD403", "info", Text("the decay does next to nothing", "衰减几乎不起作用"), next_to_nothing),
)
CODES = {check.code: check for check in sorted(CHECKS, key=lambda check: check.code)}
COST = tuple(check.code for check in CHECKS)
