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

from weightdecay.text import LANGUAGES, Text, local, use, used

if TYPE_CHECKING:
    import typer

    from weightdecay.errors import InputError

    app: typer.Typer

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; exit codes: 0 fine, 2 bad input, 130 interrupted, 141 the pipe's reader left."""
    signal.signal(signal.SIGINT, _leave)
    run()


_INTERRUPTED = Text("error: interrupted", "错误：已中断")


def _leave(*_: object) -> None:
    """Ctrl-C while libraries load: some of them swallow the exception, and nothing is there to be kept."""
    os.write(2, f"{local(_INTERRUPTED)}\n".encode())
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
    from weightdecay.cli.options import LANG, Command, Group
    from weightdecay.cli.report import report
    from weightdecay.cli.ridge import fit, predict
    from weightdecay.cli.sweep import sweep
    from weightdecay.cli.textbook import textbook
    from weightdecay.cli.units import convert, half_life, transfer

    app = typer.Typer(
        name="weightdecay",
        cls=Group,
        help="Weight decay (L2 regularisation) for people who train models with PyTorch.",
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    is_version = typer.Option("--version", help="Print the version and exit.", is_eager=True)

    @app.callback(invoke_without_command=True)
    def root(
        version: Annotated[bool, is_version] = False,
        lang: Annotated[str | None, LANG] = None,  # noqa: ARG001 (read before: it is that of the help, too)
    ) -> None:
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


def _shows_chinese() -> bool:
    """Whether the encoding of both streams has Chinese characters."""
    try:
        for stream in (sys.stdout, sys.stderr):
            "中文".encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _choose_language(words: list[str]) -> None:
    """Print in the language of --lang, else in that of the locale: zh is Chinese, everything else English.

    It is read before anything is parsed, as help and errors of the parser are in this language, too.

    Raises:
        InputError: there is no such language.
    """
    from weightdecay.errors import InputError

    settings = (os.environ.get(name) for name in ("LC_ALL", "LC_MESSAGES", "LANG"))
    locale = next(filter(None, settings), "")  # the first that is set counts, as for gettext
    use("zh" if re.match(r"zh\b|zh_|chinese", locale, re.IGNORECASE) and _shows_chinese() else "en")
    for word, following in itertools.pairwise([*words, ""]):
        if word == "--":
            break
        name, is_one_word, value = word.partition("=")
        if name != "--lang":
            continue
        asked = value if is_one_word else following
        if asked not in LANGUAGES:
            what = Text("no such language", "没有这种语言")
            remedy = Text("use en (English) or zh (Chinese)", "可用 en（英文）或 zh（中文）")
            raise InputError(what, "--lang", repr(asked), remedy)
        use(asked)


def run() -> NoReturn:
    """Run the command line and exit."""
    import typer

    from weightdecay.errors import InputError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a λ where the encoding has none
    try:
        _choose_language(sys.argv[1:])
        code = _app()(sys.argv[1:] or ["--help"], standalone_mode=False) or 0
        if sys.stdout:
            sys.stdout.flush()
        if code == 130:
            print(local(_INTERRUPTED), file=sys.stderr)
    except InputError as error:
        code = _bad_input(_in_options(error))
    except typer.TyperException as error:
        code = _bad_input(_usage(error))
    except KeyboardInterrupt:
        code = 130
    except (BrokenPipeError, SystemExit):  # typer exits by itself when the reader of a pipe has gone
        _drop_output()
        code = 141
    except OSError as error:
        if error.filename is not None:  # a name that is too long, a folder that may not be read
            what, remedy = (
                Text("a file cannot be used", "文件无法使用"),
                Text("check the path", "请检查路径"),
            )
            sys.exit(_bad_input(_message(InputError(what, str(error.filename), error.strerror, remedy))))
        _drop_output()
        what = Text("the output cannot be written", "无法写出结果")
        remedy = Text("free some space", "请腾出一些空间")
        code = _bad_input(_message(InputError(what, str(error.strerror or error), None, remedy)))
    sys.exit(code)


def _drop_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter's own last flush does not fail."""
    if sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bad_input(message: str) -> int:
    print(local(Text(f"error: {message}", f"错误：{message}")), file=sys.stderr)
    return 2


def _message(error: "InputError") -> str:
    return error.zh if used() == "zh" else str(error)


def _usage(error: "typer.TyperException") -> str:
    """What is wrong with the words of the command line."""
    given = _as_given(error)
    if used() == "zh":
        from weightdecay.cli.chinese import usage

        return f"{usage(error)}{given}（见 --help）"
    return f"{error.format_message()}{given} (see --help)"


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
    message, colon = _message(error), "：" if used() == "zh" else ": "
    name, place = re.fullmatch(r"(\w*)(.*)", error.where, re.DOTALL).groups()  # pyright: ignore
    if name in _OPTIONS and (not place or place.startswith("[")):
        message = message.replace(f"{colon}{error.where}", f"{colon}{_OPTIONS[name]}", 1)
    return re.sub(r"\b[a-z]+_[a-z]+\b(?= = )", lambda word: _OPTIONS.get(word[0], word[0]), message)
