"""GemmProblem: what is to be computed. No tensor in it, hashable, enough to choose a kernel."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GemmProblem:
    """A dense D[m, n] = A[m, k] @ B[n, k].T of FP8 operands with 1D2D scale factors, D in BF16.

    Attributes:
        m: rows of A and D.
        n: rows of B, columns of D.
        k: columns of A and B.
        arch: architecture that the kernel is compiled for, such as "90a".
        num_sms: multiprocessors that the kernel may occupy.
    """

    m: int
    n: int
    k: int
    arch: str = "90a"
    num_sms: int = 132

    @property
    def num_k_blocks(self) -> int:
        """Steps of the main loop: one per 128 of K."""
        return -(-self.k // 128)
