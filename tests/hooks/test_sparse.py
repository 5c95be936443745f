"""Sparse gradients: rows that catch up end where dense decay ends; touched rows decay as a loop says."""

import copy
import io
import math

import pytest
import torch
from torch import nn, optim
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import weightdecay as wd

# torch's own Adagrad and SparseAdam
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
N, D, LR = 40, 5, 0.1
SPARSE = {
    "SGD": lambda ps: optim.SGD(ps, lr=LR),
    "momentum": lambda ps: optim.SGD(ps, lr=LR, momentum=0.9, dampening=0.1),
    "Nesterov": lambda ps: optim.SGD(ps, lr=LR, momentum=0.9, nesterov=True),
    "maximize": lambda ps: optim.SGD(ps, lr=LR, maximize=True),
    "Adagrad": lambda ps: optim.Adagrad(ps, lr=LR, lr_decay=0.1),
}
RULES = {
    "Decoupled": lambda: wd.Decoupled(0.3),
    "a function of the step": lambda: wd.Decoupled(lambda step: 0.5 / (1 + step)),
    "Independent": lambda: wd.Independent(0.03, lr_max=LR),
    "Corrected": lambda: wd.Corrected(0.3, lr_max=LR),
    "half-life": lambda: wd.Decoupled(wd.HalfLife(steps=20)),
    "Toward": lambda: wd.Toward(0.3, to={"weight": torch.ones(N, D)}),
    "tensor": lambda: wd.Decoupled(torch.tensor(0.3, dtype=F64)),
}
F64, F32 = torch.float64, torch.float32


def embedding(sparse=True, dtype=F64, kind=nn.Embedding, **options):
    made = kind(N, D, sparse=sparse, **options).to(dtype)
    start = torch.randn(N, D, generator=torch.Generator().manual_seed(0), dtype=F64)
    made.weight.data.copy_(start / 2)
    return made


def batches(steps, seed=1):
    """Half of the rows never come; of the others, some come twice."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(N // 2, (9,), generator=generator) for _ in range(steps)]


def iterate(model, optimizer, rows, lr=LR):
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.zero_grad()
    loss = (model(rows) - 1).square().sum() + model(rows[:3].view(1, 3)).sum()  # two looks before one step
    loss.backward()
    optimizer.step()


def train(model, optimizer, steps=30, seed=1):
    """A schedule, and steps in which nobody has a gradient."""
    for i, rows in enumerate(batches(steps, seed)):
        if i % 7 == 3:
            optimizer.zero_grad()
            optimizer.step()
        else:
            iterate(model, optimizer, rows, lr=LR / (1 + i / 10))


def lazy(make=SPARSE["SGD"], rule=None, model=None, **options):
    model = embedding() if model is None else model
    optimizer = make(model.parameters())
    return model, optimizer, wd.attach(optimizer, rule or wd.Decoupled(0.3), model=model, on="all", **options)


@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("make", SPARSE)
def test_after_flush_the_weights_are_those_of_dense_decay(make, rule, dtype):
    ends, tolerance = [], 1e-12 if dtype == F64 else 1e-6
    for sparse in (True, False):
        model = embedding(sparse, dtype, padding_idx=2)
        _, optimizer, decay = lazy(SPARSE[make], RULES[rule](), model)
        train(model, optimizer)
        decay.flush()
        ends.append(model.weight.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=tolerance, atol=tolerance)


def test_sparse_adam_against_a_loop_that_decays_every_row_at_every_step():
    model, optimizer, decay = lazy(
        lambda ps: optim.SparseAdam(ps, lr=LR), wd.Decoupled(lambda t: 0.4 / (1 + t))
    )
    w = model.weight.detach().clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, rows in enumerate(batches(30)):
        lr = LR / (1 + t / 10)
        iterate(model, optimizer, rows, lr)
        g = torch.zeros_like(w)
        for row in rows.tolist():
            g[row] += 2 * (w[row] - 1)
        for row in rows[:3].tolist():
            g[row] += 1
        w *= 1 - lr * 0.4 / (1 + t)
        for row in set(rows.tolist()):
            m[row] += 0.1 * (g[row] - m[row])
            v[row] += 0.001 * (g[row] ** 2 - v[row])
            size = lr * math.sqrt(1 - 0.999 ** (t + 1)) / (1 - 0.9 ** (t + 1))
            w[row] -= size * m[row] / (v[row].sqrt() + 1e-8)
    decay.flush()
    torch.testing.assert_close(model.weight.detach(), w, rtol=0, atol=1e-12)


@pytest.mark.parametrize("mode", ["sum", "mean"])
def test_embedding_bags(mode):
    ends = []
    for sparse in (True, False):
        model = embedding(sparse, kind=nn.EmbeddingBag, mode=mode)
        _, optimizer, decay = lazy(model=model)
        weights = torch.rand(9, dtype=F64, generator=torch.Generator().manual_seed(3)).requires_grad_()
        offsets, total = torch.tensor([0, 4]), torch.zeros(9, dtype=F64)
        for rows in batches(20):
            optimizer.zero_grad()
            # the gradient of per_sample_weights needs the table as it was: a second look may not disturb it
            first = model(rows, offsets, weights if mode == "sum" else None)
            second = model(input=rows.flip(0), offsets=offsets)
            ((first - 1).square().sum() + second.sum()).backward()
            optimizer.step()
            if mode == "sum":
                total += weights.grad
                weights.grad = None
        decay.flush()
        ends.append((model.weight.detach().clone(), total))
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


class Tied(nn.Module):
    """A table that is looked up, and used whole as a head in some steps."""

    def __init__(self, sparse, in_head):
        super().__init__()
        self.table, self.head = embedding(sparse), nn.Linear(D, N, bias=False, dtype=F64)
        self.head.weight = self.table.weight
        self.in_head, self.count = in_head, 0

    def forward(self, rows):
        self.count += 1
        found = self.table(rows)
        return self.head(found) if self.in_head(self.count) else found


@pytest.mark.parametrize(
    "in_head", [lambda _: True, lambda count: count % 6 < 2], ids=["always", "now and then"]
)
def test_tied_weights_and_steps_whose_gradient_is_dense(in_head):
    ends = []
    for sparse in (True, False):
        model = Tied(sparse, in_head)
        optimizer = optim.Adagrad(model.parameters(), lr=LR)
        decay = wd.attach(optimizer, wd.Decoupled(0.3), model=model, on="all")
        train(model, optimizer, 40)
        decay.flush()
        ends.append(model.table.weight.detach().clone())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-11)


def test_a_dense_gradient_out_of_sight_of_every_hook():
    ends = []
    for sparse in (True, False):
        model, optimizer, _ = lazy(model=embedding(sparse))
        train(model, optimizer, 10)
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        ends.append(model.weight.detach().clone())  # current, without a flush
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)


def test_momentum_that_became_dense_moves_every_row():
    ends = []
    for sparse in (True, False):
        model, optimizer, decay = lazy(SPARSE["momentum"], model=embedding(sparse))
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        train(model, optimizer)
        decay.flush()
        ends.append(model.weight.detach().clone())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)


class OwnSGD(optim.SGD):
    """Takes sparse gradients, and who knows which rows it moves."""


def test_an_unknown_optimizer_decays_every_row_in_the_step():
    model, optimizer, _ = lazy(lambda ps: OwnSGD(ps, lr=LR))
    reference, other, _ = lazy(SPARSE["SGD"], model=embedding(False))
    for rows in batches(5):
        iterate(model, optimizer, rows)
        iterate(reference, other, rows)
        torch.testing.assert_close(model.weight, reference.weight, rtol=0, atol=1e-12)


def test_a_checkpointed_forward_pass_and_a_closure():
    ends = []
    for sparse in (True, False):
        model, optimizer, decay = lazy(model=embedding(sparse))
        for rows in batches(10):

            def closure(model=model, optimizer=optimizer, rows=rows):
                optimizer.zero_grad()
                found = checkpoint(lambda x: model(x).sin(), rows, use_reentrant=False)
                assert isinstance(found, torch.Tensor)
                loss = found.sum() + model(rows + 1).square().sum()
                loss.backward()
                return loss

            optimizer.step(closure)
        decay.flush()
        ends.append(model.weight.detach().clone())
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)


def test_without_a_model_rows_catch_up_in_the_step_and_a_warning_says_so():
    model = embedding()
    optimizer = optim.SGD(model.named_parameters(), lr=LR)
    decay = wd.attach(optimizer, wd.Decoupled(0.3), on="all")
    w, behind = model.weight.detach().clone(), torch.zeros(N, dtype=F64)
    with pytest.warns(wd.WeightDecayWarning, match=r"which module uses weight is not known.*give model="):
        iterate(model, optimizer, batches(1)[0])
    decay.flush()
    model.weight.data.copy_(w)
    for rows in batches(20):
        iterate(model, optimizer, rows)
        g = torch.zeros_like(w)
        for row in rows.tolist():
            g[row] += 2 * (w[row] - 1)
        for row in rows[:3].tolist():
            g[row] += 1
        behind += 1
        for row in set(rows.tolist()):
            w[row] = w[row] * (1 - LR * 0.3) ** behind[row] - LR * g[row]
            behind[row] = 0
    decay.flush()
    torch.testing.assert_close(model.weight, w * (1 - LR * 0.3) ** behind[:, None], rtol=0, atol=1e-12)


# Touched rows


def touched(model, optimizer, rules, **options):
    return wd.attach(optimizer, rules, model=model, on="all", sparse="touched", **options)


def row_gradient(w, rows):
    g = torch.zeros_like(w)
    for row in rows.tolist():
        g[row] += 2 * (w[row] - 1)
    for row in rows[:3].tolist():
        g[row] += 1
    return g


def decoupled(w, g, state):
    return w * (1 - LR * 0.3), g


def toward(w, g, state):
    return w - LR * 0.3 * (w - 1), g


def following(w, g, state):
    state["point"] = 0.9 * state["point"] + 0.1 * w
    return w - LR * 0.3 * (w - state["point"]), g


def coupled(w, g, state):
    return w, g + 0.3 * w


def both(w, g, state):
    decayed = w * (1 - LR * 0.3)
    return decayed - LR * 0.2 * (decayed - 1), g


ONES = {"weight": torch.ones(N, D, dtype=F64)}
BY_ROW = {
    "Decoupled": (lambda: wd.Decoupled(0.3), decoupled),
    "Toward": (lambda: wd.Toward(0.3, to=ONES), toward),
    "Toward an average": (lambda: wd.Toward(0.3, to=ONES, ema=0.9), following),
    "L2": (lambda: wd.L2(0.3), coupled),
    "chain": (lambda: wd.chain(wd.Decoupled(0.3), wd.Toward(0.2, to=ONES)), both),
}


@pytest.mark.parametrize("make", ["SGD", "maximize", "Adagrad"])
@pytest.mark.parametrize("rule", BY_ROW)
@pytest.mark.filterwarnings("ignore:L2 on Adagrad")
def test_touched_rows_decay_as_a_loop_over_rows_says(rule, make):
    model, (made, step) = embedding(), BY_ROW[rule]
    optimizer = SPARSE[make](model.parameters())
    touched(model, optimizer, made())
    w, sums = model.weight.detach().clone(), torch.zeros(N, D, dtype=F64)
    states = [{"point": torch.ones(D, dtype=F64)} for _ in range(N)]
    for t, rows in enumerate(batches(15)):
        iterate(model, optimizer, rows)
        g, sign = row_gradient(w, rows), -1 if make == "maximize" else 1
        for row in set(rows.tolist()):
            w[row], u = step(w[row], sign * g[row], states[row])
            if make == "Adagrad":
                sums[row] += u**2
                u = u / (sums[row].sqrt() + 1e-10) / (1 + t * 0.1)
            w[row] -= LR * u
        torch.testing.assert_close(model.weight.detach(), w, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            model.weight.grad.to_dense(), g, rtol=0, atol=1e-12
        )  # the user's own again


# What a step costs


class Results(TorchDispatchMode):
    """The sizes of all tensors that operations make, views and results in place left out."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        known = {
            one.data_ptr() for one in args if isinstance(one, torch.Tensor) and one.layout == torch.strided
        }
        own = isinstance(result, torch.Tensor) and result.layout == torch.strided and result.numel() > 0
        if own and result.data_ptr() not in known:
            self.sizes.append(result.numel())
        return result


@pytest.mark.parametrize("how", ["lazy", "touched"])
@pytest.mark.parametrize("rule", [wd.Decoupled(0.3), wd.Toward(0.3)])
def test_a_step_makes_and_writes_nothing_but_touched_rows(how, rule):
    n = 5000
    model = nn.Embedding(n, 8, sparse=True)
    optimizer = optim.SGD(model.parameters(), lr=LR)
    decay = wd.attach(optimizer, rule, model=model, on="all", sparse=how)
    iterate(model, optimizer, torch.arange(9))  # the rows' bookkeeping, and the optimizer's, is made
    iterate(model, optimizer, torch.arange(20, 29))
    before = model.weight.detach().clone()
    rows = torch.arange(3000, 3009)
    with Results() as results:
        iterate(model, optimizer, rows)
    assert max(results.sizes) <= 8 * 12 * 2
    changed = (model.weight.detach() != before).any(1).nonzero().flatten()
    assert torch.equal(changed, rows)
    decay.flush()
    left = (model.weight.detach() != before).any(1)
    if how == "touched" or isinstance(rule, wd.Toward):  # rows that stand at their point stay there
        assert left.sum() <= 27
    else:
        assert left.all()


# Checkpoints, copies


def test_resumed_bit_for_bit_by_a_fresh_object_and_by_one_whose_rows_lag():
    def make():
        return lazy(lambda ps: optim.SparseAdam(ps, lr=LR), wd.Toward(lambda t: 0.5 / (1 + t)))

    first, fresh, behind = make(), make(), make()
    data = batches(20)
    for i, rows in enumerate(data):
        if i == 10:
            file = io.BytesIO()
            torch.save([one.state_dict() for one in first], file)
        iterate(*first[:2], rows)
    for rows in batches(5, seed=4):
        iterate(*behind[:2], rows)
    for order in ((0, 1, 2), (2, 1, 0)):
        for other in (fresh, behind):
            file.seek(0)
            saved = torch.load(file, weights_only=True)
            for i in order:
                other[i].load_state_dict(saved[i])
            for rows in data[10:]:
                iterate(*other[:2], rows)
            assert torch.equal(other[0].weight, first[0].weight)
    for one in (first, fresh, behind):
        one[2].flush()
    assert torch.equal(first[0].weight, fresh[0].weight)
    assert torch.equal(first[0].weight, behind[0].weight)


def test_weights_written_by_hand_and_a_decay_state_loaded_after_them():
    model, optimizer, decay = lazy()
    saved = decay.state_dict()
    train(model, optimizer)
    twin = copy.deepcopy(model)
    decay.state_dict()
    assert torch.equal(model.weight, twin.weight)
    train(model, optimizer)
    written = torch.ones_like(model.weight)
    model.weight.data.copy_(written)  # not by load_state_dict
    decay.load_state_dict(saved)
    decay.flush()
    assert torch.equal(model.weight, written)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_saved_model_is_current(wrapped):
    inner = embedding()
    model = nn.Sequential(inner) if wrapped else inner
    _, optimizer, decay = lazy(model=model)
    train(model, optimizer)
    behind = inner.weight.detach().clone()
    saved = {key: value.clone() for key, value in model.state_dict().items()}
    decay.flush()
    assert torch.equal(next(iter(saved.values())), inner.weight)
    assert not torch.equal(inner.weight, behind)


def test_load_state_dict_that_leaves_the_table_out_loses_no_decay():
    model, optimizer, decay = lazy()
    train(model, optimizer)
    twin = copy.deepcopy(model)
    model.load_state_dict({}, strict=False)
    decay.flush()
    assert torch.equal(model.weight, twin.weight)


def test_copies_of_a_model_are_current_and_independent():
    model, optimizer, decay = lazy(rule=wd.Decoupled(lambda _: 0.3))  # pickles, though a function does not
    train(model, optimizer)
    file = io.BytesIO()
    torch.save(model, file)
    behind = model.weight.detach().clone()
    twin = copy.deepcopy(model)
    assert torch.equal(model.weight, behind)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    decay.flush()
    assert torch.equal(twin.weight, model.weight)
    rows = torch.arange(N - 3, N)
    assert torch.equal(loaded(rows), model(rows))  # it catches up by itself
    second = optim.SGD(loaded.parameters(), lr=LR)
    again = wd.attach(second, wd.Decoupled(0.3), model=loaded, on="all")
    train(model, optimizer)
    train(loaded, second)
    decay.flush()
    again.flush()
    torch.testing.assert_close(loaded.weight, model.weight, rtol=0, atol=1e-12)
    assert torch.equal(twin(rows), twin.weight[rows])


def test_detach_lets_rows_catch_up_and_takes_every_hook_away():
    model, optimizer, decay = lazy()
    hooks = ("_forward_pre_hooks", "_state_dict_pre_hooks", "_load_state_dict_pre_hooks")
    train(model, optimizer)
    assert all(getattr(model, name) for name in hooks)
    twin = copy.deepcopy(model)
    decay.detach()
    assert not any(getattr(model, name) for name in hooks)
    assert torch.equal(model.weight, twin.weight)
    train(model, optimizer)
    assert torch.equal(model.weight[N // 2 :], twin.weight[N // 2 :])


def test_a_table_that_is_frozen_catches_up_in_the_next_step():
    model, optimizer, decay = lazy()
    train(model, optimizer)
    twin = copy.deepcopy(model)
    model.weight.requires_grad_(False)
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(model.weight, twin.weight)
    assert not model._forward_pre_hooks
    assert decay._sparse.lazy == ()


def test_a_model_that_changes_its_type():
    models = [lazy(rule=wd.Toward(0.3, to=ONES), model=embedding(sparse, F32)) for sparse in (True, False)]
    for model, optimizer, decay in models:
        train(model, optimizer, 6)
        model.double()
        with torch.inference_mode():  # what is made again here has to stay usable
            model(torch.arange(N))
        decay.load_state_dict(decay.state_dict())
        train(model, optimizer, 6, seed=2)
        decay.flush()
    torch.testing.assert_close(models[0][0].weight, models[1][0].weight, rtol=0, atol=1e-6)
    assert models[0][0].weight.dtype == F64


def test_inference_mode_and_compiled_models():
    model, optimizer, decay = lazy()
    reference, other, _ = lazy(model=embedding(False))
    compiled = torch.compile(model, backend="eager")
    for rows in batches(6):
        iterate(compiled, optimizer, rows.int())
        iterate(reference, other, rows)
        with torch.inference_mode():
            assert torch.equal(model(torch.arange(N - 2, N)), model.weight[N - 2 :])
            torch.testing.assert_close(model(rows), reference(rows), rtol=0, atol=1e-12)
    decay.flush()
    torch.testing.assert_close(model.weight, reference.weight, rtol=0, atol=1e-12)


def test_a_step_that_a_scaler_skips_does_not_decay():
    model, optimizer, decay = lazy()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for i, rows in enumerate(batches(6)):
        optimizer.zero_grad()
        loss = model(rows).sum() * (math.inf if i == 2 else 1.0)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    decay.flush()
    assert decay.steps == 5
    never = embedding().weight[N // 2 :] * (1 - LR * 0.3) ** 5
    torch.testing.assert_close(model.weight[N // 2 :], never, rtol=0, atol=1e-14)


def test_it_says_so():
    decay = lazy()[2]
    assert "rows of weight when touched" in repr(decay)
    tied = Tied(True, lambda _: True)
    assert "when touched" not in repr(lazy(model=tied)[2])
    detached = lazy()[2]
    detached.detach()
    assert "when touched" not in repr(detached)


# What is refused


REFUSED = [
    (wd.Cautious(0.3), "SGD", {}, r"Cautious looks at the update.*weight = sparse gradient, 12 of 40 rows;"),
    (wd.Cautious(0.3), "SGD", {"sparse": "touched"}, r"Cautious looks at the update"),
    (wd.L2(0.3), "SGD", {}, r"L2 adds to the gradient of every row.*sparse=\"touched\""),
    (wd.L2(0.01), "momentum", {}, r"L2 adds to the gradient of every row.*sparse=\"touched\""),
    (wd.Toward(0.3, ema=0.9), "SGD", {}, r"decays by Toward do not add up to one.*sparse=\"touched\""),
    (wd.chain(wd.Decoupled(0.1), wd.Decoupled(0.1)), "SGD", {}, r"decays by a chain do not add up"),
    (wd.Decoupled(0.3), "SGD", {"rounding": "stochastic"}, r"not rounded at random"),
    (
        wd.Decoupled(0.3),
        "AdamW",
        {},
        r"AdamW is not made for sparse gradients.*use SGD, Adagrad or SparseAdam",
    ),
    (wd.Decoupled(0.3), "RMSprop", {"sparse": "touched"}, r"RMSprop is not made for sparse gradients"),
]
OTHERS = {
    "AdamW": lambda ps: optim.AdamW(ps, lr=LR, weight_decay=0),
    "RMSprop": lambda ps: optim.RMSprop(ps, lr=LR),
}


@pytest.mark.parametrize(("rule", "make", "options", "message"), REFUSED)
def test_refused_in_the_step_before_anything_changes(rule, make, options, message):
    model = nn.ModuleDict({"dense": nn.Linear(D, 2, bias=False, dtype=F64), "table": embedding()})
    optimizer = {**SPARSE, **OTHERS}[make](model.parameters())
    if make == "AdamW":
        rule = wd.chain(rule, wd.Toward(0.1))  # not lowered
    wd.attach(optimizer, rule, model=model, on="all", **options)
    rows = batches(1)[0]
    (model["dense"](model["table"](rows)).sum() + model["table"](rows[:3]).sum()).backward()
    before = copy.deepcopy(model.state_dict())
    gradients = [p.grad for p in model.parameters()]
    with pytest.raises(wd.InputError, match=message) as error:
        optimizer.step()
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [p.grad for p in model.parameters()] == gradients
    assert not any(len(state) for state in optimizer.state.values())
    assert not model["table"]._forward_pre_hooks


def test_whole_weights_are_refused(monkeypatch):
    monkeypatch.setattr("weightdecay.rules.base.RULES", {})  # it stays out of the registry

    class Centred(wd.Decoupled):
        elementwise = False

        def decayed(self, w, step):
            return w - step.rate * (w - w.mean())

    model, optimizer, _ = lazy(rule=Centred(0.3))
    model(torch.tensor([1, 1])).sum().backward()
    with pytest.raises(wd.InputError, match="Centred looks at whole weights"):
        optimizer.step()
    assert not Centred(0.3).composes


def test_refused_when_attaching():
    model = embedding()
    optimizer = optim.SparseAdam(model.parameters(), lr=LR)
    for rule, options, message in (
        (wd.Decoupled(0.3), {"sparse": "both"}, r"sparse = 'both'; use lazy or touched"),
        (wd.Cautious(0.3), {}, r"looks at the update.*optimizer = SparseAdam, whose gradients are sparse"),
        (wd.L2(0.3), {}, r"L2 adds to the gradient of every row"),
    ):
        with pytest.raises(wd.InputError, match=message):
            wd.attach(optimizer, rule, model=model, on="all", **options)
    assert not optimizer._optimizer_step_pre_hooks


def test_an_audit_knows_which_decay_goes_by_sparse_gradients():
    def codes(optimizer, model):
        return {one.code for one in wd.audit(model, optimizer).findings}

    model = embedding()
    assert "WD501" in codes(optim.SGD(model.parameters(), lr=LR, weight_decay=0.1), model)
    for rule, options, raises in (
        (wd.Decoupled(0.3), {}, False),
        (wd.Cautious(0.3), {}, True),
        (wd.L2(0.3), {}, True),
        (wd.L2(0.3), {"sparse": "touched"}, False),
    ):
        optimizer = optim.SGD(model.parameters(), lr=LR)
        decay = wd.attach(optimizer, rule, model=model, on="all", **options)
        assert ("WD501" in codes(optimizer, model)) == raises == (decay.sparse is None)


def test_dense_gradients_are_left_alone():
    model, optimizer, decay = lazy(model=embedding(False), rule=wd.Cautious(0.3))
    train(model, optimizer, 3)
    assert not model._forward_pre_hooks
    assert decay._sparse.lazy == ()
