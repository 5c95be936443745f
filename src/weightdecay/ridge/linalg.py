"""The few dense products and decompositions that cost anything, each on the fastest kernel at hand.

On a CPU they go to NumPy's BLAS, without a copy: NumPy sends X X' to the symmetric kernel, half the work, for
which torch has no call, and the wheels of the two carry thread pools of their own, which slow each other when
they take turns. On other devices they are torch's.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import threadpool_limits
from torch import Tensor

EPS = torch.finfo(torch.float64).eps
# Some kernels of NumPy's warn of numbers beyond the largest; what is made of them is checked and told.
_quiet = np.errstate(over="ignore", invalid="ignore")


@_quiet
def gram(Z: Float[Tensor, "n p"]) -> Float[Tensor, "n n"]:
    """Z Z'. For Z'Z pass the transpose: no copy is made."""
    if Z.device.type != "cpu":
        return Z @ Z.T
    rows = Z.numpy()
    return torch.from_numpy(rows @ rows.T)


@_quiet
def matmul(A: Float[Tensor, "*b n k"], B: Float[Tensor, "*b k m"]) -> Float[Tensor, "*b n m"]:
    """A B, or as many products as there are pairs."""
    return A @ B if A.device.type != "cpu" else torch.from_numpy(A.numpy() @ B.numpy())


def solve_definite(
    A: Float[Tensor, "r d d"], B: Float[Tensor, "r d t"], certain: bool
) -> Float[Tensor, "r d t"] | None:
    """A^-1 B for symmetric positive definite matrices; None where one is not, unless that is ruled out."""
    if A.device.type != "cpu":
        factor, info = torch.linalg.cholesky_ex(A)
        return None if bool(info.any()) else torch.cholesky_solve(B, factor)
    try:
        if not certain:
            np.linalg.cholesky(A.numpy())
        return torch.from_numpy(np.linalg.solve(A.numpy(), B.numpy()))
    except np.linalg.LinAlgError:
        return None


def eigh(K: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues, ascending, and eigenvectors of a symmetric matrix."""
    if K.device.type != "cpu":
        return torch.linalg.eigh(K)
    s, U = np.linalg.eigh(K.numpy())
    return torch.from_numpy(s), torch.from_numpy(U)


@contextlib.contextmanager
def on_cpu() -> Iterator[None]:
    """Make small tensors on the CPU meanwhile, whatever `torch.set_default_device` says."""
    # A device context sends every call of torch through Python: enter it only where it changes something.
    elsewhere = torch.get_default_device().type != "cpu"
    with torch.device("cpu") if elsewhere else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def one_pool() -> Iterator[None]:
    """Keep torch to one thread meanwhile, and restore it.

    Waiting threads of torch's pool spin, and take the cores from those of NumPy's BLAS, which do the work.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Keep NumPy's BLAS to one thread meanwhile: other threads read, or other processes have the cores."""
    with threadpool_limits(1, user_api="blas"):
        yield
