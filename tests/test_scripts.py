"""A user's file: what it has to say, what goes wrong in it, and that other processes need not have it."""

import subprocess
import sys
import textwrap
from functools import partial
from hashlib import sha256
from pathlib import Path

import cloudpickle
import pytest
import torch
from torch import nn

import weightdecay as wd
from weightdecay.scripts import ScriptError, load_script

DIGITS = Path(__file__).parents[1] / "examples" / "digits.py"
GOOD = """
from functools import partial
import torch
from torch import nn

def make_model():
    return nn.Linear(3, 1)

def data():
    X = torch.randn(8, 3)
    return (X, X[:, :1]), (X, X[:, :1])

loss = nn.functional.mse_loss
optimizer = partial(torch.optim.SGD, lr=0.1)
"""


@pytest.fixture(autouse=True)
def as_it_was():
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("weightdecay_script_") or name == "beside":
            del sys.modules[name]


def written(folder, text, name="mine.py"):
    (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")
    return folder / name


def test_four_names_are_enough(tmp_path):
    file = written(tmp_path, GOOD)
    state = torch.get_rng_state()
    script = load_script(file)
    assert torch.equal(torch.get_rng_state(), state)
    assert sorted(script.arguments) == ["loss", "make_model", "optimizer", "test", "train"]
    assert script.sha256 == sha256(file.read_bytes()).hexdigest()
    assert isinstance(script.arguments["make_model"](), nn.Linear)
    with torch.random.fork_rng():  # numbers that a file draws are the same in every run
        torch.manual_seed(0)
        assert torch.equal(script.arguments["train"][0], torch.randn(8, 3))


def test_more_names_and_data_as_a_pair(tmp_path):
    more = """
    data = data()
    epochs, batch_size, every, clip, on, schedule = 3, 4, 1, 1.0, "matrices", "cosine"
    metrics = {"error": loss}
    maximize = "error"
    rule = None
    other = 7
    """
    arguments = load_script(written(tmp_path, GOOD + textwrap.dedent(more))).arguments
    assert (arguments["epochs"], arguments["schedule"], arguments["maximize"]) == (3, "cosine", "error")
    assert "other" not in arguments
    assert "data" not in arguments
    assert len(arguments["test"]) == 2


def test_modules_beside_it_are_found(tmp_path):
    written(tmp_path, "width = 5\n", "beside.py")
    file = written(
        tmp_path, "from beside import width\n" + GOOD.replace("nn.Linear(3, 1)", "nn.Linear(3, width)")
    )
    assert load_script(file).arguments["make_model"]().out_features == 5


def test_the_example_is_one():
    script = load_script(DIGITS)
    (inputs, targets), test = script.arguments["train"], script.arguments["test"]
    assert inputs.shape == (1198, 64)
    assert test[0].shape == (599, 64)
    assert (float(inputs.min()), float(inputs.max())) == (0, 1)
    output = script.arguments["make_model"]()(inputs)
    assert float(script.arguments["metrics"]["accuracy"](nn.functional.one_hot(targets), targets)) == 1
    assert float(script.arguments["loss"](output.detach(), targets)) > 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["lacks make_model and data and loss and optimizer", "make_model is a function"]),
        (GOOD.replace("loss =", "lost ="), ["the file lacks loss: ", "mine.py"]),
        (GOOD.replace("data()", "date()"), ["the file lacks data"]),
        (GOOD + "loss = 3\n", ["loss is not a function", "= 3"]),
        (GOOD + "data = 3\n", ["data is not a pair", "= int"]),
        (GOOD + "data = (1, 2, 3)\n", ["data is not a pair", "= 3 things"]),
        (GOOD + "def data():\n    return None\n", ["data is not a pair", "NoneType"]),
    ],
)
def test_what_a_file_lacks_is_told(tmp_path, text, words):
    with pytest.raises(wd.InputError) as caught:
        load_script(written(tmp_path, text))
    assert not isinstance(caught.value, ScriptError)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "none.py", tmp_path, "a\0b"):
        with pytest.raises(wd.InputError, match="cannot be read"):
            load_script(path)


@pytest.mark.parametrize(
    ("text", "said", "frames"),
    [
        (
            "import torch\n\nx = torch.nn.Linear(3)\n",
            "TypeError",
            ["line 3, in <module>", "x = torch.nn.Linear(3)"],
        ),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'", ["line 1"]),
        ("def f(:\n", "SyntaxError", ["line 1", "^"]),
        (
            "def f():\n    return 1 / 0\n\nf()\n",
            "ZeroDivisionError: division by zero",
            ["line 4", "line 2, in f"],
        ),
        ("raise SystemExit(3)\n", "SystemExit: 3", ["line 1"]),
        (GOOD + "def data():\n    return torch.ones(2) @ torch.ones(3)\n", "RuntimeError", ["in data", "@"]),
    ],
)
def test_a_file_that_fails_shows_its_own_frames_alone(tmp_path, text, said, frames):
    with pytest.raises(ScriptError) as caught:
        load_script(written(tmp_path, text))
    error = caught.value
    assert said in str(error)
    assert "\n" not in str(error)
    for part in frames:
        assert part in error.frames
    assert "site-packages" not in error.frames
    assert "script.py" not in error.frames
    assert not [name for name in sys.modules if name == "weightdecay_script_mine"] or "data" in str(error)


def test_ctrl_c_goes_through(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        load_script(written(tmp_path, "raise KeyboardInterrupt\n"))


def test_another_process_does_not_need_the_file(tmp_path):
    text = GOOD + "WIDTH = 7\nclass Net(nn.Module):\n    def forward(self, x):\n        return x * WIDTH\n"
    text += "def make_model():\n    return Net()\n"
    arguments = load_script(written(tmp_path, text)).arguments
    content = cloudpickle.dumps((arguments["make_model"], arguments["optimizer"], partial(torch.add, 1)))
    (tmp_path / "mine.py").unlink()
    code = "import sys, cloudpickle, torch; make, *_ = cloudpickle.load(sys.stdin.buffer)\n"
    code += "print(float(make()(torch.tensor(2.0))))"
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=False)
    assert done.stdout == b"14.0\n", done.stderr
