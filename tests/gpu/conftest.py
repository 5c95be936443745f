"""Devices that are not the CPU: a real one where there is one, and one that pretends."""

from contextlib import nullcontext

import pytest
from tests.gpu.pretend import pretending

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture(params=["pretend", CUDA])
def device(request):
    with pretending() if request.param == "pretend" else nullcontext():
        yield request.param


@pytest.fixture(params=[CUDA])
def cuda(request):
    """For what no pretending device has: kernels, generators and graphs of its own."""
    return request.param
