"""Command lines as `weightdecay` runs them: here, where torch is loaded, or in a process of their own."""

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

from weightdecay.cli import run

COMMAND = [str(Path(sys.executable).parent / "weightdecay")]


def in_a_process(*words, cwd, **options):
    """A real process, which takes seconds to load torch: where that it is one matters."""
    return subprocess.run(
        [*COMMAND, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=120, **options
    )


def at_a_terminal(*words, cwd, columns, lines=40, output_too=False):
    """A real process whose standard error is a terminal, and its output where asked for.

    Returns:
        Its exit code, what a pipe took of its output, and what the terminal showed.
    """
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *map(str, words)],
        cwd=cwd,
        stdout=slave if output_too else subprocess.PIPE,
        stderr=slave,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns), "LINES": str(lines)},
        text=True,
    )
    os.close(slave)
    shown = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            piece = os.read(master, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    out = process.communicate(timeout=60)[0]
    os.close(master)
    return process.returncode, out, shown.decode()


def here(*words, cwd, encoding="utf-8"):
    """In this process, with streams like those of a pipe: what it printed, and its exit code."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2))
    words = [*map(str, words)]
    handler = signal.getsignal(signal.SIGINT)
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch.object(sys, "argv", ["weightdecay", *words]),
        mock.patch.object(sys, "path", [*sys.path]),
    ):
        try:
            run()
        except SystemExit as left:
            code = left.code
        finally:
            signal.signal(signal.SIGINT, handler)
    printed = []
    for stream in (out, err):
        stream.flush()
        printed.append(stream.buffer.getvalue().decode(encoding))
    return subprocess.CompletedProcess(words, code, *printed)
