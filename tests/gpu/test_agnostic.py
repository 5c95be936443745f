"""Runs `agnostic.py`: a device that is registered stays registered, and torch takes it for an accelerator."""

import subprocess
import sys


def test_every_device_gives_what_the_cpu_gives():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/gpu/agnostic.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
