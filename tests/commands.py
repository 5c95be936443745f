"""Command lines as `weightdecay` runs them."""

import json
import subprocess
import sys

# Many command lines in one process, each as `weightdecay` runs it.
MANY = """
import contextlib, io, json, sys
from weightdecay.cli.commands import run
found = []
for arguments in json.load(sys.stdin):
    sys.argv = ["weightdecay", *arguments]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            run()
        except SystemExit as exit:
            code = exit.code
    found.append((code, out.getvalue(), err.getvalue()))
print(json.dumps(found))
"""


def in_one_process(lines, cwd):
    """What each printed, and its exit code; torch is loaded once."""
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps([[str(part) for part in line] for line in lines]),
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [subprocess.CompletedProcess(lines, *result) for result in json.loads(done.stdout)]
