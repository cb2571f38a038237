"""The library's dense kernel on operands that bring out its arithmetic.

The kernel is compiled anew wherever a case runs. Its text may change between the recording and the
comparison: the bits of D may not, since the order of its sums is fixed by K alone. Each element is
the FP32 FMA, k block by k block, of what four WGMMAs begun at zero give and the scale factors'
product.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from deep_gemm.config.gemm_config import GemmConfig
from deep_gemm.config.problem import GemmProblem
from deep_gemm.config.select import Selection, best_band
from deep_gemm.jit.build import build
from deep_gemm.jit.codegen import generate
from deep_gemm.kernels.fp8_gemm import GemmTensors, plan_dense
from goldens.excuses import Excuse
from goldens.machines import UNTOUCHED, Bytes, Machine

ARCH = "90a"
BLOCK_K = 128
NUM_SMS = 2
GUARD_ROWS = 4


@dataclass(frozen=True)
class Arrays:
    """FP8 codes [m, k] and [n, k], FP32 scale factors [m, k blocks] and [n blocks, k blocks]."""

    a: NDArray[np.uint8]
    b: NDArray[np.uint8]
    sfa: NDArray[np.float32]
    sfb: NDArray[np.float32]


Make = Callable[[int, int, int], Arrays]


def _codes(rng: np.random.Generator, rows: int, k: int, high: int = 0x7E) -> NDArray[np.uint8]:
    return (rng.integers(0, high + 1, (rows, k)) | rng.integers(0, 2, (rows, k)) << 7).astype("u1")


def _scale_factors(
    rng: np.random.Generator, rows: int, k: int, low: int, high: int
) -> NDArray[np.float32]:
    shape = rows, -(-k // BLOCK_K)
    return (rng.uniform(1, 2, shape) * np.exp2(rng.integers(low, high, shape))).astype(np.float32)


def _random(m: int, n: int, k: int) -> Arrays:
    """Any numbers, scale factors within a few powers of two."""
    rng = np.random.default_rng(k)
    a, b = _codes(rng, m, k), _codes(rng, n, k)
    sfa = _scale_factors(rng, m, k, -6, 3)
    return Arrays(a, b, sfa, _scale_factors(rng, -(-n // 128), k, -6, 3))


def _cancelling(m: int, n: int, k: int) -> Arrays:
    """Products that cancel within and across k blocks, so that little but rounding is left."""
    rng = np.random.default_rng(k + 1)
    a, b = _codes(rng, m, k, high=0x5F), _codes(rng, n, k, high=0x5F)
    a[:, 1::2] = a[:, : k - 1 : 2] ^ 0x80
    b[:, 1::2] = b[:, : k - 1 : 2]
    a[:, ::17] = _codes(rng, m, len(range(0, k, 17)), high=0x3F)
    sfa = _scale_factors(rng, m, k, -1, 1)
    sfa[:, 1::2] = -sfa[:, : sfa.shape[1] // 2 * 2 : 2]
    return Arrays(a, b, sfa, _scale_factors(rng, -(-n // 128), k, 0, 1))


def _extreme(m: int, n: int, k: int) -> Arrays:
    """Scale factors over all of FP32: denormal, zero, infinite, NaN; largest and smallest codes."""
    rng = np.random.default_rng(k + 2)
    a, b = _codes(rng, m, k), _codes(rng, n, k)
    a[::3] = _codes(rng, len(a[::3]), k, high=7)
    b[::5] = 0x7E
    a[m // 2, k // 2], b[n // 3, k // 3] = 0x7F, 0xFF
    sfa = _scale_factors(rng, m, k, -75, 55)
    # Few enough that most rows of D are numbers.
    special = np.array([0, -0.0, 1e-40, -1e-45, 3e38, np.inf, np.nan], dtype=np.float32)
    rows = np.arange(1, m, 4)
    sfa[rows, rng.integers(0, sfa.shape[1], rows.size)] = rng.choice(special, rows.size)
    return Arrays(a, b, sfa, _scale_factors(rng, -(-n // 128), k, -75, 55))


@dataclass(frozen=True)
class DenseCase:
    """One problem, solved with one configuration."""

    config: GemmConfig
    m: int
    n: int
    k: int
    make: Make
    excuse: Excuse | None = None

    @property
    def name(self) -> str:
        tile = self.config.name.removeprefix("sm90_fp8_gemm_1d2d_")
        return f"dense/{tile}-{self.m}x{self.n}x{self.k}-{self.make.__name__.strip('_')}"

    def digest(self) -> str:
        return ""

    def run(self, machine: Machine) -> Bytes:
        arrays = self.make(self.m, self.n, self.k)
        a, b, sfa, sfb = (
            torch.from_numpy(array).to(machine.device)
            for array in (arrays.a, arrays.b, arrays.sfa, arrays.sfb)
        )
        a, b = a.view(torch.float8_e4m3fn), b.view(torch.float8_e4m3fn)
        stride = -(-self.n // 8) * 8
        memory = torch.full(
            (self.m + GUARD_ROWS, 2 * stride), UNTOUCHED, dtype=torch.uint8, device=machine.device
        )
        d = memory.view(torch.bfloat16)[: self.m, : self.n]
        problem = GemmProblem(self.m, self.n, self.k, arch=ARCH, num_sms=NUM_SMS)
        selection = Selection(self.config, best_band(problem, self.config))
        plan = plan_dense(problem, selection, GemmTensors.of_matrices(a, sfa, b, sfb, d))
        plan.launch(*(tensor.data_ptr() for tensor in (a, b, d, sfa, sfb)))
        machine.synchronise()
        return memory.cpu().numpy().reshape(-1)


def _config(
    m: int, n: int, stages: int, warpgroups: int = 1, cluster: tuple[int, int] = (1, 1)
) -> GemmConfig:
    return GemmConfig(
        block_m=m,
        block_n=n,
        num_stages=stages,
        num_math_warpgroups=warpgroups,
        cluster_m=cluster[0],
        cluster_n=cluster[1],
    )


CASES = [
    DenseCase(_config(16, 16, 8), 11, 24, 4096, _random),
    DenseCase(_config(16, 16, 8), 32, 16, 4096, _cancelling),
    DenseCase(_config(16, 16, 8), 32, 16, 2048, _extreme),
    DenseCase(_config(64, 32, 6), 70, 40, 1024, _random),
    DenseCase(_config(64, 32, 6), 33, 40, 208, _extreme),
    DenseCase(_config(64, 144, 4), 24, 152, 1024, _random),
    DenseCase(_config(64, 144, 4), 24, 144, 1024, _cancelling),
    DenseCase(_config(128, 96, 5, 2), 72, 96, 512, _random),
    DenseCase(_config(128, 96, 5, 2), 72, 96, 512, _extreme),
    DenseCase(_config(128, 128, 4, 2, (2, 1)), 144, 64, 512, _random),
    DenseCase(_config(128, 128, 4, 2, (1, 2)), 40, 168, 400, _cancelling),
    DenseCase(_config(256, 128, 3, 2), 200, 40, 272, _random),
]


def compile_all() -> None:
    """Compiles every case's kernel, side by side, so that no case has to wait for its own."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(build, {generate(case.config, ARCH) for case in CASES}))
