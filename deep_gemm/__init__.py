"""FP8 GEMM kernels with fine-grained scale factors, compiled at run time.

Importing this package touches neither CUDA nor a compiler.
"""

from deep_gemm._version import __version__
from deep_gemm.errors import (
    ArgumentError,
    CompilationError,
    CudaError,
    DeepGemmError,
    MissingDependencyError,
    UnsupportedArchitectureError,
)
from deep_gemm.gemm import fp8_gemm_nt
from deep_gemm.quantize import (
    per_block_cast_to_fp8,
    per_channel_cast_to_fp8,
    per_token_cast_to_fp8,
)
from deep_gemm.utils import align, ceil_div, ceil_to_ue8m0

__all__ = [
    "ArgumentError",
    "CompilationError",
    "CudaError",
    "DeepGemmError",
    "MissingDependencyError",
    "UnsupportedArchitectureError",
    "__version__",
    "align",
    "ceil_div",
    "ceil_to_ue8m0",
    "fp8_gemm_nt",
    "per_block_cast_to_fp8",
    "per_channel_cast_to_fp8",
    "per_token_cast_to_fp8",
]
