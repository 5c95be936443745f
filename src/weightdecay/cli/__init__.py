"""The command line: parse, call, print. Nothing heavy is imported before a command runs.

This file imports next to nothing, so that Ctrl-C is answered from the first moments on.
"""

import os
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weightdecay.cli.commands import app

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; exit codes: 0 fine, 2 bad input, 130 interrupted, 141 the pipe's reader left."""
    signal.signal(signal.SIGINT, _leave)
    from weightdecay.cli.commands import run

    run()


def _leave(*_: object) -> None:
    """Ctrl-C while libraries load: some of them swallow the exception, and nothing is there to be kept."""
    os.write(2, b"error: interrupted\n")
    os._exit(130)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from weightdecay.cli.commands import app

    return app
