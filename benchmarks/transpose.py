"""The transpose table: our kernel beside torch's copy, and beside a copy that turns nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from benchmarks.bandwidth import Calls, copy_of
from deep_gemm.kernels.transpose import k_major, mn_major
from deep_gemm.testing.numeric import assert_bitwise_equal


@dataclass(frozen=True)
class Transposition:
    """Of a row-major source [rows, columns], FP8 or FP32."""

    rows: int
    columns: int
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"{self.rows} x {self.columns} {str(self.dtype).removeprefix('torch.')}"

    @property
    def num_bytes(self) -> int:
        return 2 * self.rows * self.columns * self.dtype.itemsize

    def source(self, device: str) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(self.rows + self.columns)
        shape = (self.rows, self.columns * self.dtype.itemsize)
        return torch.randint(
            0, 256, shape, generator=generator, device=device, dtype=torch.uint8
        ).view(self.dtype)

    def variants(self, device: str = "cuda") -> Calls:
        x = self.source(device)

        def ours() -> torch.Tensor:
            return mn_major(x).T if self.dtype == torch.float32 else k_major("x", x.T)

        assert_bitwise_equal(ours(), x.T.contiguous(), f"transpose of {self}")
        return {
            "ours": ours,
            "torch": lambda: x.T.contiguous(),
            "copy": copy_of(self.num_bytes, device),
        }


PROBLEMS = (
    Transposition(4096, 7168, torch.float8_e4m3fn),
    Transposition(7168, 16384, torch.float8_e4m3fn),
    Transposition(32768, 7168, torch.float8_e4m3fn),
    Transposition(7168, 512, torch.float32),
    Transposition(131072, 56, torch.float32),
    Transposition(524288, 56, torch.float32),
)
