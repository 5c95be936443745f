"""`attach(compile=True)`, in processes without the tests' own type checks, which torch cannot trace."""

import os
import shutil
import subprocess
import sys

import pytest

AGREE = """
import torch, torch._dynamo, weightdecay as wd
from torch._dynamo.utils import counters

def train(kind, rule, compiled):
    generator = torch.Generator().manual_seed(0)
    layers = torch.nn.Linear(200, 150), torch.nn.Tanh(), torch.nn.Linear(150, 120)
    model = torch.nn.Sequential(*layers).double()
    for w in model.parameters():
        w.data = torch.randn(w.shape, generator=generator, dtype=torch.float64) / 10
    x = torch.randn(9, 200, generator=generator, dtype=torch.float64)
    optimizer = kind(model.named_parameters(), lr=0.05, weight_decay=0)
    wd.attach(optimizer, rule, model=model, on="all", compile=compiled)
    for step in range(6):
        seen.append(counters["stats"]["unique_graphs"])
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    return torch.cat([w.detach().flatten() for w in model.parameters()])

for kind in (torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop):
    for rule in (wd.Cautious(lambda step: 0.4 / (1 + step)), wd.Toward(0.4, ema=0.9)):
        torch._dynamo.reset()
        counters.clear()
        seen = []
        compiled = train(kind, rule, True)
        last = counters["stats"]["unique_graphs"]
        difference = (compiled - train(kind, rule, False)).abs().max()
        print(kind.__name__, seen[0], seen[3], last, float(difference))
"""


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_rules_agree_with_eager_ones():
    """1e-12: a kernel may add and multiply in one rounding. No graph is made after the third step."""
    done = subprocess.run([sys.executable, "-c", AGREE], capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == ["AdamW", "AdamW", "SGD", "SGD", "RMSprop", "RMSprop"]
    for name, first, third, last, difference in lines:
        assert int(first) == 1  # the trial when attaching
        assert int(third) == int(last)
        assert int(last) > 1 or name == "RMSprop"  # whose update is read after the step, without a kernel
        assert float(difference) < 1e-12


REFUSED = """
import torch, weightdecay as wd
model = torch.nn.Linear(3, 1)
optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.1, weight_decay=0)
try:
    wd.attach(optimizer, wd.Cautious(0.1), model=model, compile=True)
except wd.InputError as error:
    print(error)
print(len(optimizer._optimizer_step_pre_hooks))
"""


def test_without_a_compiler_attach_says_so_and_changes_nothing(tmp_path):
    environment = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], capture_output=True, text=True, check=True, env=environment
    )
    message, hooks = done.stdout.splitlines()
    assert message.startswith("torch.compile cannot write a kernel here: compile = ")
    assert message.endswith("; install a C++ compiler, or leave out compile=True")
    assert hooks == "0"
