"""A real GPU, where there is one."""

import pytest


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu)])
def cuda(request):
    """For what needs kernels, generators and graphs of its own."""
    return request.param
