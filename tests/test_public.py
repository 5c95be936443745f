"""The surface: public names, the command line's options, and what an import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

import weightdecay as wd
from weightdecay.cli import app

HEAVY = {"torch", "numpy", "polars", "matplotlib", "rich", "typer", "jaxtyping"}


def test_public_names_are_these():
    assert wd.__all__ == [
        "Audit",
        "Cautious",
        "Constrained",
        "Corrected",
        "Decoupled",
        "DivergenceError",
        "Experiment",
        "FixedNorm",
        "Group",
        "HalfLife",
        "HalfLives",
        "Huber",
        "Independent",
        "InputError",
        "Interrupted",
        "L2",
        "LiveCurves",
        "LoRAProduct",
        "LogisticPath",
        "Monitor",
        "PNorm",
        "RidgePath",
        "Rule",
        "Run",
        "Setup",
        "Stable",
        "Sweep",
        "Synthetic",
        "TableFile",
        "Toward",
        "WeightDecayError",
        "WeightDecayScheduler",
        "WeightDecayWarning",
        "attach",
        "audit",
        "audit_diff",
        "chain",
        "conventions",
        "convert",
        "load",
        "logistic_path",
        "param_groups",
        "plot",
        "probe",
        "report",
        "ridge_path",
        "run_experiment",
        "split",
        "sweep",
        "transfer",
    ]
    for name in wd.__all__:
        assert getattr(wd, name).__doc__
        assert name in dir(wd)
    assert set(wd.__all__) == set(wd._HOMES)


def test_a_type_checker_sees_the_same_names():
    tree = ast.parse(Path(wd.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {name.asname: (node.module, name.name) for node in block.body for name in node.names}
    assert seen == {name: (f"weightdecay.{home}", name) for name, home in wd._HOMES.items()}


def test_options_are_these():
    command = typer.main.get_command(app)
    for sub in command.commands.values():
        assert any("--lang" in parameter.opts for parameter in sub.params)
    assert {
        name: sorted(option for parameter in sub.params for option in parameter.opts if option != "--lang")
        for name, sub in command.commands.items()
    } == {
        "textbook": sorted(
            f"--{name}"
            for name in (
                *(
                    "lambda",
                    "version",
                    "seed",
                    "seeds",
                    "data",
                    "target",
                    "drop",
                    "n-train",
                    "n-test",
                    "n-inputs",
                ),
                *(
                    "true-weight",
                    "true-bias",
                    "noise",
                    "batch-size",
                    "lr",
                    "bias-lr",
                    "epochs",
                    "every",
                    "init",
                ),
                *(
                    "penalize-bias",
                    "dtype",
                    "curve",
                    "curve-seeds",
                    "settings",
                    "out",
                    "force",
                    "quiet",
                    "json",
                    "open",
                ),
            )
        ),
        "fit": sorted(
            [
                *("data", "--standardize"),
                *(
                    f"--{name}"
                    for name in (
                        *("target", "drop", "cv", "lambda", "unit", "choose", "shared", "seed", "groups"),
                        *(
                            "time",
                            "weights",
                            "unpenalized",
                            "intercept",
                            "out-of-core",
                            "engine",
                            "out",
                            "task",
                        ),
                        *("id", "force", "quiet", "json", "category", "number", "dates", "missing", "judge"),
                        *("separator", "decimal-comma", "encoding"),
                    )
                ),
            ]
        ),
        "sweep": sorted(
            [
                "file",
                *(
                    f"--{name}"
                    for name in (
                        *("strengths", "unit", "seeds", "epochs", "batch-size", "rule", "lr", "minimize"),
                        *("maximize", "widen", "refine", "engine", "device", "out", "resume", "curves"),
                        *("quiet", "json"),
                    )
                ),
            ]
        ),
        "audit": sorted(
            [
                "target",
                *(
                    f"--{name}"
                    for name in (
                        *("format", "ignore", "steps", "steps-per-epoch", "schedule", "groups", "save"),
                        *("interval", "against"),
                    )
                ),
            ]
        ),
        "report": ["--force", "--open", "--out", "--quiet", "folder"],
        "predict": [
            *("--decimal-comma", "--encoding", "--force", "--id", "--interval", "--json", "--out", "--quiet"),
            *("--separator", "--unseen", "data", "model"),
        ],
        "transfer": ["--json", "--keep", "--law", "--new", "--old", "--width-rule", "weight_decay"],
        "convert": [
            *("--batch-size", "--dampening", "--from", "--json", "--list", "--lr-max", "--micro-batches"),
            *("--momentum", "--n", "--noise-sd", "--sd-x", "--sd-y", "--to", "value"),
        ],
        "half-life": sorted(
            f"--{name}"
            for name in (
                *("lr", "weight-decay", "half-life", "half-lives", "schedule", "steps", "warmup", "floor"),
                *("decay", "law", "coupled", "momentum", "dampening", "nesterov", "dtype"),
                *("steps-per-epoch", "interval", "json"),
            )
        ),
    }
    assert [parameter.opts for parameter in command.params] == [["--version"], ["--lang"]]


def loaded(code):
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_importing_the_package_imports_nothing_heavy():
    assert not loaded("import weightdecay") & HEAVY
    assert "torch" not in loaded("import weightdecay; weightdecay.InputError")


@pytest.mark.parametrize(
    "command", ["textbook", "fit", "predict", "sweep", "audit", "report", "transfer", "convert", "half-life"]
)
def test_help_does_not_import_torch(command):
    code = f"sys.argv = ['weightdecay', '{command}', '--help']\nfrom weightdecay import cli\n"
    modules = loaded(code + "try: cli.main()\nexcept SystemExit: pass")
    assert "typer" in modules
    assert not modules & {"torch", "numpy", "polars", "matplotlib"}


def test_numbers_of_other_libraries_are_welcome():
    """In a process without the type checks of the tests."""
    script = (
        "import numpy as np, torch, weightdecay as wd\n"
        "numbers = {'seed': np.int64(1), 'lr': np.float32(0.5), 'curve': np.array([1.0])}\n"
        "e = wd.Experiment(lambdas=torch.tensor([0.0, 3.0]), **numbers)\n"
        "assert e.to_dict() == wd.Experiment(lambdas=(0.0, 3.0), seed=1, lr=0.5, curve=(1.0,)).to_dict()\n"
        "assert wd.Experiment(lambdas=3.0).lambdas == (3.0,)\n"
        "for wrong in ({'lambdas': ['3']}, {'lr': None}, {'data': None}, {'seed': 1.5}, {'epochs': True}):\n"
        "    try: wd.Experiment(**wrong).checked()\n"
        "    except wd.InputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_an_unknown_name_is_an_attribute_error():
    assert not hasattr(wd, "no_such_name")


def test_the_module_is_the_command_line():
    done = subprocess.run([sys.executable, "-m", "weightdecay", "--version"], capture_output=True, text=True)
    assert done.stdout == f"weightdecay {wd.__version__}\n"


def test_packages_behind_the_names_are_there_from_the_start():
    code = "import weightdecay as wd; print(wd.groups.table, wd.schedule.lifetime, wd.rules.Step)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
