"""Run the blocks of a README in order and compare or write the outputs shown below them.

A block of Python or of commands may be followed by a block without a language: what it prints. Of commands
it may begin late and end early; a line `…` stands for rows left out. `python tests/docs/readme.py` writes the
outputs anew, in both languages, cut at the same places.
"""

import contextlib
import io
import math
import os
import re
import shutil
import tempfile
from pathlib import Path

import typer.testing

from weightdecay.cli import app

ROOT = Path(__file__).parents[2]
NAMES = ("README.md", "README.zh.md")
CUT = "…"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$(?:\n\n^```\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


def blocks(text):
    """All blocks that run: language, code and the output shown, or None."""
    return [match.groups() for match in _BLOCK.finditer(text)]


def commands(code):
    """The words of each `weightdecay` command of a block."""
    lines = [line.split("#")[0].split() for line in code.splitlines()]
    return [line for line in lines if line and line[0] == "weightdecay"]


def run(language, code, names):
    """What one block prints. Python blocks share `names`, as cells of a notebook do."""
    if language == "python":
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, "README", "exec"), names)
        return out.getvalue()
    printed = ""
    for command in commands(code):
        result = typer.testing.CliRunner(env={"COLUMNS": "100"}).invoke(app, command[1:])
        assert result.exit_code == 0, (command, result.output, result.exception)
        printed += result.stdout
    return printed


def differs(shown, printed, ends=True):
    """The first shown line that was not printed there, or None. Numbers may differ by 2 %: other machines.

    Args:
        shown: the block in the README.
        printed: what its code prints.
        ends: whether the first and the last line have to be there.
    """
    rest = printed.rstrip("\n").splitlines()
    free = not ends  # lines may be left out here
    for line in shown.rstrip("\n").splitlines():
        if line.strip() == CUT:
            free = True
            continue
        while rest and free and not _alike(line, rest[0]):
            rest.pop(0)
        if not rest or not _alike(line, rest.pop(0)):
            return line
        free = False
    return rest[0] if ends and rest else None


def _alike(a, b):
    if _NUMBER.sub("0", a).split() != _NUMBER.sub("0", b).split():
        return False
    pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
    return all(math.isclose(*(float(one.replace(",", "")) for one in pair), rel_tol=0.02) for pair in pairs)


def refreshed(shown, printed, ends=True):
    """The output as it is now, cut where the one shown is cut. A line that is gone gets a mark."""
    if ends and CUT not in shown:
        return printed.rstrip() + "\n"
    rest = printed.splitlines()
    kept = []
    for line in shown.splitlines():
        words = _NUMBER.sub("0", line).split()
        there = [place for place, one in enumerate(rest) if _NUMBER.sub("0", one).split() == words]
        if line.strip() == CUT or not there:
            kept.append(line if line.strip() == CUT else f"??? {line}")
        else:
            kept.append(rest[there[0]].rstrip())
            rest = rest[there[0] + 1 :]
    return "\n".join(kept) + "\n"


@contextlib.contextmanager
def checkout():
    """A folder that looks like a checkout to a reader of the README."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "examples", Path(folder) / "examples")
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def rewrite(name):
    """Write the outputs of one README anew."""
    path, names = ROOT / name, {}

    def anew(match):
        language, code, shown = match.groups()
        printed = run(language, code, names)
        if shown is None:
            return match[0]
        if not shown.strip():
            shown = printed  # all of it, to be cut by hand
        return f"```{language}\n{code}```\n\n```\n{refreshed(shown, printed, language == 'python')}```"

    with checkout():
        text = _BLOCK.sub(anew, path.read_text("utf-8"))
    path.write_text(text, "utf-8")


if __name__ == "__main__":
    for one in NAMES:
        rewrite(one)
