"""`weightdecay sweep` and Ctrl-C: what is finished is kept; --resume ends with the bits of a whole run."""

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess

from tests.cli.test_cli_sweep import FILES, SWEEP, TINY, names, refused
from tests.commands import COMMAND, here, in_a_process

# Takes as long as the environment says; it draws random numbers, so each seed is a chunk of its own.
SLOW = TINY.replace("nn.Tanh()", "nn.Dropout(0.2)").replace(
    "loss = nn.functional.mse_loss",
    """
import os, time
def loss(output, target):
    time.sleep(float(os.environ.get("PAUSE", 0)))
    return nn.functional.mse_loss(output, target)
""",
)


def test_ctrl_c_that_a_library_makes_an_error_of_is_still_ctrl_c(tmp_path):
    swallowing = """
import os, signal
def loss(output, target):
    if os.environ.get("ARMED"):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            raise RuntimeError("callback failed") from None
    return nn.functional.mse_loss(output, target)
"""
    text = TINY.replace("loss = nn.functional.mse_loss", swallowing)
    (tmp_path / "tiny.py").write_text(text)
    done = in_a_process(*SWEEP, cwd=tmp_path, env={**os.environ, "ARMED": "1"})
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "error: interrupted"


def test_ctrl_c_keeps_what_is_finished_and_resume_ends_it(tmp_path):
    (tmp_path / "tiny.py").write_text(SLOW)
    process = subprocess.Popen(
        [*COMMAND, *SWEEP, "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PAUSE": "0.1"},
    )
    while json.loads(process.stdout.readline())["done"] < 4:  # the first of two chunks
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    others = r"no checkpoint of the others was written yet|4 more are kept up to epoch \d of 3"
    assert re.search(rf"kept in a: 4 of 8 trainings are finished, and ({others}); --resume goes on", err)
    assert err.splitlines()[-1] == "error: interrupted"
    with contextlib.closing(sqlite3.connect(tmp_path / "a/sweep.sqlite")) as store:
        assert store.execute("SELECT count(*) FROM trained").fetchone() == (4,)
    resumed, whole = here(*SWEEP, "--resume", cwd=tmp_path), here(*SWEEP[:-1], "b", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert whole.returncode == 0, whole.stderr
    assert resumed.stdout == whole.stdout.replace("written into b", "written into a")
    for name in ("table.parquet", "curves.parquet", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    # A folder without a sweep is begun, and a file is no folder.
    fresh, file = (here(*SWEEP[:-1], out, "--resume", cwd=tmp_path) for out in ("c", "tiny.py"))
    assert (fresh.returncode, names(tmp_path / "c")) == (0, FILES), fresh.stderr
    refused(file, ["--out", "tiny.py", "cannot be written"])
