"""References, error measures and timing, for tests and benchmarks. Needs no GPU to import."""

from __future__ import annotations

from deep_gemm.testing.bench import (
    bench,
    bench_kineto,
    empty_suppress,
    get_arch_major,
    host_time,
    profile_kernels,
    suppress_stdout_stderr,
)
from deep_gemm.testing.filters import ignore_env, test_filter
from deep_gemm.testing.grouped_reference import by_k_group, by_masked_group, by_row_group
from deep_gemm.testing.numeric import (
    GuardedOutput,
    assert_bitwise_equal,
    calc_diff,
    count_bytes,
    guarded_output,
    max_scaled_error,
)
from deep_gemm.testing.reference import (
    PER_BLOCK,
    PER_TOKEN,
    dequantize,
    fp8_gemm_nt_reference,
    fp8_gemm_nt_yardstick,
)

__all__ = [
    "PER_BLOCK",
    "PER_TOKEN",
    "GuardedOutput",
    "assert_bitwise_equal",
    "bench",
    "bench_kineto",
    "by_k_group",
    "by_masked_group",
    "by_row_group",
    "calc_diff",
    "count_bytes",
    "dequantize",
    "empty_suppress",
    "fp8_gemm_nt_reference",
    "fp8_gemm_nt_yardstick",
    "get_arch_major",
    "guarded_output",
    "host_time",
    "ignore_env",
    "max_scaled_error",
    "profile_kernels",
    "suppress_stdout_stderr",
    "test_filter",
]
