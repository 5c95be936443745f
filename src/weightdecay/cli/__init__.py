"""The command line: parse, call, print; and what becomes of an error: one line and an exit code.

This file imports next to nothing, so that Ctrl-C is answered from the first moments on. The commands and
typer are imported when one is run.
"""

import functools
import io
import itertools
import os
import re
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

if TYPE_CHECKING:
    import typer

    from weightdecay.errors import InputError

    app: typer.Typer

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; exit codes: 0 fine, 2 bad input, 130 interrupted, 141 the pipe's reader left."""
    signal.signal(signal.SIGINT, _leave)
    run()


def _leave(*_: object) -> None:
    """Ctrl-C while libraries load: some of them swallow the exception, and nothing is there to be kept."""
    os.write(2, b"error: interrupted\n")
    os._exit(130)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _app()


@functools.cache
def _app() -> "typer.Typer":
    """The program with all its commands."""
    import typer

    from weightdecay import __version__
    from weightdecay.cli.audit import audit
    from weightdecay.cli.options import Command
    from weightdecay.cli.report import report
    from weightdecay.cli.ridge import fit, predict
    from weightdecay.cli.sweep import sweep
    from weightdecay.cli.textbook import textbook
    from weightdecay.cli.units import convert, half_life, transfer

    app = typer.Typer(
        name="weightdecay",
        help="Weight decay (L2 regularisation) for people who train models with PyTorch.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    is_version = typer.Option("--version", help="Print the version and exit.", is_eager=True)

    @app.callback(invoke_without_command=True)
    def root(version: Annotated[bool, is_version] = False) -> None:
        if version:
            print(f"weightdecay {__version__}")
            raise typer.Exit

    for command in (textbook, fit, predict, sweep, audit, report, transfer, convert, half_life):
        app.command(command.__name__.replace("_", "-"), cls=Command)(command)
    return app


# How the settings that errors are about are spelled as options.
_OPTIONS = {
    name: "--" + name.replace("_", "-")
    for name in (
        *("lambda", "version", "seed", "seeds", "data", "target", "drop", "n_train", "n_test", "n_inputs"),
        *("true_weight", "true_bias", "noise", "batch_size", "lr", "bias_lr", "epochs", "every", "init"),
        *("dtype", "curve", "curve_seeds", "settings", "cv", "unit", "choose", "groups", "time", "weights"),
        *("task", "judge", "shared", "missing"),
        *("unpenalized", "intercept", "interval", "out", "out_of_core", "engine", "id"),
        *("strengths", "rule", "widen", "refine", "minimize", "maximize", "device", "chunk", "resume"),
        *("format", "ignore", "steps", "steps_per_epoch", "schedule", "save", "against"),
    )
}


def run() -> NoReturn:
    """Run the command line and exit."""
    import typer

    from weightdecay.errors import InputError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a λ where the encoding has none
    try:
        code = _app()(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
        if sys.stdout:
            sys.stdout.flush()
        if code == 130:
            print("error: interrupted", file=sys.stderr)
    except InputError as error:
        code = _bad_input(_in_options(error))
    except typer.TyperException as error:
        code = _bad_input(f"{error.format_message()}{_as_given(error)} (see --help)")
    except KeyboardInterrupt:
        code = 130
    except (BrokenPipeError, SystemExit):  # typer exits by itself when the reader of a pipe has gone
        _drop_output()
        code = 141
    except OSError as error:
        if error.filename is not None:  # a name that is too long, a folder that may not be read
            code = _bad_input(f"a file cannot be used: {error.filename} = {error.strerror}; check the path")
            sys.exit(code)
        _drop_output()
        code = _bad_input(f"the output cannot be written: {error.strerror or error}; free some space")
    sys.exit(code)


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter's own last flush does not fail."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bad_input(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _as_given(error: "typer.TyperException") -> str:
    """The value an option was given, which typer's message leaves out."""
    options = getattr(getattr(error, "param", None), "opts", [])
    for word, following in itertools.pairwise([*sys.argv, ""]):
        name, _, value = word.partition("=")
        if name in options:
            return f" = {value or following!r}"
    return ""


def _in_options(error: "InputError") -> str:
    """The message with settings spelled as options: n_train -> --n-train."""
    message = str(error)
    name, place = re.fullmatch(r"(\w*)(.*)", error.where, re.DOTALL).groups()  # pyright: ignore
    if name in _OPTIONS and (not place or place.startswith("[")):
        message = message.replace(f": {error.where}", f": {_OPTIONS[name]}", 1)
    return re.sub(r"\b[a-z]+_[a-z]+\b(?= = )", lambda word: _OPTIONS.get(word[0], word[0]), message)
