"""Compiles kernels.py for sm_90a and writes NAME.ptx; needs Triton 3.9, but no GPU.

Usage: python tests/emulator/from_triton/generate.py, where Triton is installed. What is written
is committed, so the tests need neither.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import triton
from kernels import cast_to_fp8, fp8_dot, masked_sums, softmax
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

FOLDER = Path(__file__).parent
TARGET = GPUTarget("cuda", 90, 32)
FP8_DOT = {
    "a_map": "tensordesc<fp8e4nv[{BLOCK_M}, {BLOCK_K}]>",
    "b_map": "tensordesc<fp8e4nv[{BLOCK_N}, {BLOCK_K}]>",
    "d_map": "tensordesc<bf16[{BLOCK_M}, {BLOCK_N}]>",
    "num_m_blocks": "i32",
    "num_k_blocks": "i32",
}
VECTORS = {
    **{"x": "*fp32", "y": "*fp32", "total": "*fp32", "largest": "*i32"},
    **{"size": "i32", "factor": "fp32"},
}

# Name of the text -> kernel, types of its parameters, its constants, warps and stages.
KERNELS = {
    "masked_sums": (
        masked_sums,
        VECTORS,
        {"BLOCK": 512},
        4,
        1,
    ),
    "softmax": (
        softmax,
        {"x": "*bf16", "y": "*bf16", "stride": "i32", "size": "i32"},
        {"BLOCK": 1024},
        4,
        1,
    ),
    "cast_to_fp8": (
        cast_to_fp8,
        {"x": "*fp32", "y": "*fp8e4nv", "sf": "*fp32", "rows": "i32"},
        {"K": 128, "BLOCK": 16},
        2,
        1,
    ),
    "fp8_dot": (fp8_dot, FP8_DOT, {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 128}, 4, 3),
    "fp8_dot_wide": (fp8_dot, FP8_DOT, {"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 128}, 8, 2),
}


def main() -> int:
    for name, (function, types, constants, num_warps, num_stages) in KERNELS.items():
        signature = {key: value.format(**constants) for key, value in types.items()}
        signature |= dict.fromkeys(constants, "constexpr")
        kernel = triton.compile(
            ASTSource(function, signature, constexprs=constants),
            target=TARGET,
            options={"num_warps": num_warps, "num_stages": num_stages},
        )
        header = (
            f"// Triton {triton.__version__}: {function.__name__} of kernels.py, {constants},"
            f" {num_warps} warps, {num_stages} stages\n"
            f"// shared memory: {kernel.metadata.shared} bytes\n"
            f"// boxes: {[entry['block_size'] for entry in kernel.metadata.tensordesc_meta]}\n"
        )
        (FOLDER / f"{name}.ptx").write_text(header + without_folders(kernel.asm["ptx"]))
    return 0


def without_folders(text: str) -> str:
    """The text without the folders of this machine: in .file, and by bytes in DWARF sections."""
    text, _, _ = text.partition("\t.section\t.debug_")
    lines = re.sub(r'(\.file\s+\d+\s+)"[^"]*/([^"/]*)"', r'\1"\2"', text).splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
