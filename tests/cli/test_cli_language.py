"""The language that the command line prints in: Chinese holds no English but names, English is as it was."""

import inspect
import json
import re
from pathlib import Path

import pytest
from tests.commands import here

from weightdecay import text
from weightdecay.cli import chinese, options

EXAMPLES = Path(__file__).parents[2] / "examples"
RECORDS = {
    "textbook": options.TextbookOptions,
    "fit": options.FitOptions,
    "predict": options.PredictOptions,
    "sweep": options.SweepOptions,
    "audit": options.AuditOptions,
    "report": options.ReportOptions,
    "transfer": options.TransferOptions,
    "convert": options.ConvertOptions,
    "half-life": options.HalfLifeOptions,
}
TABLE = "id,colour,flag,size,y\n" + "".join(
    f"a{i},{'red' if i % 3 else 'blue'},{'yes' if i % 2 else 'no'},{i * i % 7}.5,{i}.25\n" for i in range(24)
)
# What stays as it is: options, types, quotations, paths, calls, settings and dotted names ...
CODE = re.compile(
    r"""--[\w-]+ | <\w+> | "[^"]*" | '[^']*' | `[^`]*` | [\w.]+\([^)]*\) | \w+=[^\s，。；）]* | \bWD\d+
    | \.?[\w./-]+\.(?:csv|tsv|txt|parquet|arrow|feather|py|json|html|svg|png|safetensors|sqlite)\b
    | \.(?:csv|tsv|txt|parquet|arrow|feather)\b | [\w.]+[_.:/+-][\w.:/+-]* | \w*\d\w*""",
    re.VERBOSE,
)
# ... names of commands, settings and their values, of classes, roles and forms, of columns and symbols.
_NAMES = """
    textbook fit predict sweep audit report transfer convert weightdecay scratch concise canonical
    COLUMN DATA FOLDER TARGET MODEL FILE VALUE DECAY LANG MESSAGES ALL ARGS en zh
    refuse drop mean days free penalized none loo gcv evidence best regression classification error brier
    auc base all normal zero here loss tab dask cpu cuda table json github step epoch run independent sqrt
    constant linear cosine wsd cautious decoupled coupled unknown sign normalised
    build model data train test optimizer optimizers scheduler metrics schedule epochs rule on clip every
    minimize maximize examples width warmup floor decay interval ignore meta list str state dict layers
    coefficients importance predicted reliability cv safetensors standardize outside
    matrix bias head normalization embedding convolution other scaled weight group position
    PyTorch torch SGD Adam AdamW MSELoss Nesterov dampening momentum alpha lambda tau Keras Composer glmnet
    sgdw muP arXiv Python HTML CSV JSON NaN None True False autocast logit
    Decoupled Linear Odd Growing OneForAll Forgetful Flat CosineAnnealingLR
    lr wd sd init row id size colour flag red blue yes no missing fat water protein Xw grad rate norm words
"""
NAMES = set(_NAMES.split())


def english(shown):
    """Words of English that are left when names and code are taken out."""
    return sorted(set(re.findall(r"[A-Za-z]{2,}", CODE.sub(" ", shown))) - NAMES)


@pytest.fixture(autouse=True)
def _english_again(monkeypatch):
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    yield
    text.use("en")


def chinese_of(*words, cwd, code=0):
    done = here(*words, "--lang", "zh", cwd=cwd)
    assert done.returncode == code, done.stderr
    shown = done.stdout + done.stderr
    assert re.search("[一-鿿]", shown)
    assert not english(shown), shown
    return shown


def test_the_textbook_is_in_chinese(tmp_path, undrawn):
    shown = chinese_of("textbook", "--curve-seeds", 2, "--curve", "0.1:10:3", "--out", "t", cwd=tmp_path)
    assert "测试损失" in shown
    assert "已写入 t" in shown


def test_tables_are_in_chinese(tmp_path, undrawn):
    (tmp_path / "a.csv").write_text(TABLE)
    shown = chinese_of("fit", "a.csv", cwd=tmp_path)
    assert "下一步" in shown
    chinese_of("fit", "a.csv", "--target", "y", "--out", "m", cwd=tmp_path)
    chinese_of("predict", "m", "a.csv", cwd=tmp_path)
    shown = chinese_of("fit", "a.csv", "--target", "flag", "--out", "c", "--cv", 3, cwd=tmp_path)
    assert "对数损失" in shown


def test_a_sweep_is_in_chinese(tmp_path, undrawn):
    (tmp_path / "a.py").write_text(
        "import torch\n"
        "def make_model():\n    return torch.nn.Linear(3, 1)\n"
        "g = torch.Generator().manual_seed(0)\n"
        "X = torch.randn(40, 3, generator=g)\n"
        "data = (X[:20], X[:20].sum(1, True)), (X[20:], X[20:].sum(1, True))\n"
        "loss = torch.nn.functional.mse_loss\n"
        "def optimizer(parameters):\n    return torch.optim.SGD(parameters, lr=0.1)\n"
    )
    shown = chinese_of(
        *("sweep", "a.py", "--strengths", "0.01:1:3", "--seeds", 2, "--epochs", 2, "--engine", "here"),
        cwd=tmp_path,
    )
    assert "测试损失：2 个种子的平均" in shown


@pytest.mark.parametrize(("builder", "steps", "code"), [("build", 100_000, 1), ("build_flat", 1000, 1)])
def test_an_audit_is_in_chinese(builder, steps, code, tmp_path):
    target = f"{EXAMPLES / 'audit_me.py'}:{builder}"
    shown = chinese_of("audit", target, "--steps", steps, cwd=tmp_path, code=code)
    assert "修正：" in shown
    saved = here("audit", target, "--steps", steps, "--format", "json", "--lang", "zh", cwd=tmp_path)
    assert saved.stdout == here("audit", target, "--steps", steps, "--format", "json", cwd=tmp_path).stdout


@pytest.mark.parametrize(
    "words",
    [
        "convert --list",
        "convert 3 --from textbook --to torch.SGD+MSELoss.sum --n 20",
        "half-life --lr 3e-4 --weight-decay .1 --schedule cosine --steps 10000 --dtype bfloat16",
        "half-life --lr 1 --weight-decay .3 --steps-per-epoch 100 --steps 5",
        "transfer 0.1 --old batch=256,lr=3e-4,steps=10000 --new batch=1024,lr=6e-4,steps=5000,width=3",
        "transfer .1 --keep epoch --old batch=1,lr=3e-4,steps=99,width=9 --new batch=2,lr=1,steps=9,width=3",
    ],
)
def test_conversions_are_in_chinese(words, tmp_path):
    chinese_of(*words.split(), cwd=tmp_path)


@pytest.mark.parametrize("command", [None, *RECORDS])
def test_help_is_in_chinese(command, tmp_path):
    words = [] if command is None else [command]
    shown = chinese_of(*words, "--help", cwd=tmp_path)
    assert max(map(text.columns_of, shown.splitlines())) <= 80
    usual = here(*words, "--help", cwd=tmp_path).stdout
    assert set(re.findall(r"--[a-z-]+", usual)) == set(re.findall(r"--[a-z-]+", shown))


@pytest.mark.parametrize("command", RECORDS)
def test_the_help_in_chinese_has_the_options_that_there_are(command):
    fields = set(inspect.signature(RECORDS[command]).parameters)
    own = set(chinese.OPTIONS[command])
    assert own <= fields
    assert fields <= own | set(chinese._EVERYWHERE)
    assert set(chinese.SUMMARIES) == {"weightdecay", *RECORDS}


@pytest.mark.parametrize(
    "words",
    [
        "fit nope.csv",
        "fit a.csv --target yy",
        "fit a.csv --target y --choose x",
        "fit a.csv --target y --cv 1",
        "fit a.csv --bogus",
        "fit a.csv --target y --drop y --target y",
        "fit",
        "fot",
        "textbook --epochs ten",
        "textbook --seeds 0",
        "textbook --lr -1",
        "textbook --lambda a",
        "report nope",
        "convert 3 --from textboo --to x",
        "half-life --lr 1",
        "half-life --lr 1 --weight-decay 2",
        "sweep nope.py --strengths 1",
        "audit nope.py:build",
        "transfer 1 --old batch=1 --new batch=1",
    ],
)
def test_common_errors_are_in_chinese(words, tmp_path):
    (tmp_path / "a.csv").write_text(TABLE)
    done = here(*words.split(), "--lang", "zh", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("错误：")
    assert done.stderr.count("\n") == 1
    left = re.sub(r"--[\w-]+|nope\S*|bogus|textboo|fot|ten|yy", " ", done.stderr)
    assert not english(left), done.stderr


@pytest.mark.parametrize(
    ("settings", "is_chinese"),
    [
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "zh_TW"}, True),
        ({"LC_ALL": "zh"}, True),
        ({"LC_MESSAGES": "zh_CN.GB18030", "LANG": "de_DE"}, True),
        ({"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, False),
        ({"LC_ALL": "", "LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "xx_YY.UTF-8"}, False),
        ({"LANG": "C.UTF-8"}, False),
        ({}, False),
    ],
)
def test_the_locale_chooses_and_the_option_overrules(settings, is_chinese, tmp_path, monkeypatch):
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    words = ("half-life", "--lr", "0.1", "--weight-decay", "0.1")
    shown = here(*words, cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert ("半衰期" in shown.stdout) is is_chinese
    for lang in text.LANGUAGES:
        assert ("半衰期" in here(*words, f"--lang={lang}", cwd=tmp_path).stdout) is (lang == "zh")


def test_a_stream_that_cannot_show_it_is_english_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("LANG", "zh_CN")
    words = ("half-life", "--lr", "0.1", "--weight-decay", "0.1")
    assert "half-life" in here(*words, cwd=tmp_path, encoding="ascii").stdout
    assert "半衰期" in here(*words, cwd=tmp_path, encoding="gb18030").stdout


def test_another_language_names_those_there_are(tmp_path):
    done = here("fit", "--lang", "xx", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "error: no such language: --lang = 'xx'; use en (English) or zh (Chinese)\n"
    assert here("fit", "--lang", cwd=tmp_path).returncode == 2


def test_json_is_the_same_in_both(tmp_path, undrawn):
    (tmp_path / "a.csv").write_text(TABLE)
    for words in (
        ("half-life", "--lr", "1", "--weight-decay", ".3", "--steps", "5", "--json"),
        ("convert", "--list", "--json"),
        ("fit", "a.csv", "--json"),
        ("fit", "a.csv", "--target", "y", "--out", "m", "--json", "--quiet"),
    ):
        usual, other = (here(*words, "--lang", lang, cwd=tmp_path) for lang in ("en", "zh"))
        assert usual.stdout == other.stdout
        json.loads(usual.stdout)
