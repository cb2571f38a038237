"""The quantise table: our casting kernels beside PyTorch's eager and compiled definitions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch._dynamo

from benchmarks.bandwidth import Calls
from deep_gemm.quantize import (
    quantize_per_block,
    quantize_per_channel,
    quantize_per_token,
    quantize_swiglu,
)
from deep_gemm.testing.numeric import assert_bitwise_equal
from deep_gemm.testing.quantize_reference import cast_blocks_reference, silu_mul_reference

BF16, FP32 = torch.bfloat16, torch.float32
NUM_GROUPS = 32

Pair = tuple[torch.Tensor, torch.Tensor]

NUM_COMPILED = 64
"""Graphs that torch.compile may keep: one for every problem."""


@dataclass(frozen=True)
class Problem:
    """A cast of [m, n].

    Attributes:
        kind: per_token, per_channel, per_block, swiglu (of [m, 2 * n]); masked, masked_swiglu and
            row_ids, the layouts of grouped GEMMs.
        m, n: of the result.
        dtype: of the input.
        use_ue8m0: scale factors are powers of two; packed, where the kernel can.
        valid: rows that are cast, in groups of one size; None for all.
    """

    kind: str
    m: int
    n: int
    dtype: torch.dtype = BF16
    use_ue8m0: bool = False
    valid: int | None = None

    def __str__(self) -> str:
        rows = "" if self.valid is None else f", {self.valid} rows"
        scale = ", UE8M0" if self.use_ue8m0 else ""
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.kind} {self.m} x {self.n} {dtype}{scale}{rows}"

    @property
    def multiplies(self) -> bool:
        return self.kind.endswith("swiglu")

    @property
    def num_rows(self) -> int:
        """Rows that are cast."""
        return self.m if self.valid is None else self.valid

    @property
    def num_bytes(self) -> int:
        """What has to be moved."""
        block = 128 * 128 if self.kind == "per_block" else 128
        sf_bytes = 1 if self.packed else 4
        read = (2 if self.multiplies else 1) * self.dtype.itemsize
        return self.num_rows * self.n * (read + 1) + self.num_rows * self.n // block * sf_bytes

    @property
    def packed(self) -> bool:
        """Whether the kernel packs the scale factors."""
        return self.use_ue8m0 and self.kind not in ("per_channel", "per_block")

    def input(self, device: str) -> torch.Tensor:
        generator = torch.Generator(device).manual_seed(self.m + self.n)
        width = 2 * self.n if self.multiplies else self.n
        x = torch.empty(self.m, width, dtype=self.dtype, device=device)
        return x.normal_(generator=generator)

    def variants(self, device: str = "cuda") -> Calls:
        """Ours and, of whole matrices, the definition's two, after a check that casts agree."""
        x = self.input(device)
        cast = ours(self, x)
        if self.kind not in ("per_token", "per_channel", "per_block", "swiglu"):
            return {"ours": cast}
        if not self.multiplies:
            (data, sf), (wanted, factors) = cast(), definition(self, x)
            assert_bitwise_equal(data, wanted, f"data of {self}")
            if not self.packed:
                assert_bitwise_equal(sf, factors, f"scale factors of {self}")
        # Graphs are kept per function; without room for all it would fall back to the eager one.
        torch._dynamo.config.cache_size_limit = NUM_COMPILED
        compiled = torch.compile(definition, dynamic=False, fullgraph=True)
        return {
            "ours": cast,
            "eager": lambda: definition(self, x),
            "compiled": lambda: compiled(self, x),
        }


PROBLEMS = (
    Problem("per_token", 128, 7168),
    Problem("per_token", 4096, 7168),
    Problem("per_token", 16384, 7168),
    Problem("per_token", 16384, 7168, use_ue8m0=True),
    Problem("per_token", 16384, 7168, FP32),
    Problem("per_token", 131072, 2048),
    Problem("per_channel", 16384, 7168),
    Problem("per_channel", 16384, 7168, FP32),
    Problem("per_block", 16384, 7168),
    Problem("per_block", 16384, 7168, FP32),
    Problem("swiglu", 16384, 2048),
    Problem("swiglu", 32768, 7168),
    Problem("masked", 131072, 7168, valid=131072),
    Problem("masked", 131072, 7168, valid=1024),
    Problem("masked_swiglu", 131072, 2048, valid=32768),
    Problem("masked_swiglu", 131072, 2048, valid=0),
    Problem("row_ids", 65536, 7168, valid=16384),
)


def definition(problem: Problem, x: torch.Tensor) -> Pair:
    """The definition's result."""
    y = silu_mul_reference(*x.chunk(2, dim=1)) if problem.multiplies else x
    blocks = {"per_channel": (128, 1), "per_block": (128, 128)}.get(problem.kind, (1, 128))
    return cast_blocks_reference(y, *blocks, problem.use_ue8m0)


def ours(problem: Problem, x: torch.Tensor) -> Callable[[], Pair]:
    """Our call, as an engine makes it: scale factors in the GEMM's layout, groups on the device."""
    if problem.kind == "per_channel":
        return lambda: quantize_per_channel(x, use_ue8m0=problem.use_ue8m0)
    if problem.kind == "per_block":
        return lambda: quantize_per_block(x, use_ue8m0=problem.use_ue8m0)
    cast = quantize_swiglu if problem.multiplies else quantize_per_token
    formats = {"use_ue8m0": problem.use_ue8m0, "use_packed_ue8m0": problem.packed}
    if problem.kind.startswith("masked"):
        counts = torch.full((NUM_GROUPS,), problem.num_rows // NUM_GROUPS, dtype=torch.int32)
        masked_m, grouped = counts.to(x.device), x.view(NUM_GROUPS, -1, x.shape[1])
        return lambda: cast(grouped, masked_m=masked_m, **formats)
    if problem.kind == "row_ids":
        ids = torch.full((problem.m,), -1, dtype=torch.int32, device=x.device)
        ids[: problem.num_rows] = torch.arange(problem.num_rows, device=x.device).int() // 512
        return lambda: cast(x, grouped_layout=ids, **formats)
    return lambda: cast(x, **formats)
