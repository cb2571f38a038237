"""Compiles kernels.py for sm_90a, and blackwell_kernels.py and gluon_kernels.py for sm_100a.

Writes NAME.ptx; needs Triton 3.9, but no GPU.

Usage: python tests/emulator/from_triton/generate.py, where Triton is installed. What is written
is committed, so the tests need neither.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import blackwell_kernels as blackwell
import gluon_kernels as pairs
import triton
from kernels import cast_to_fp8, fp8_dot, masked_sums, softmax
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource

FOLDER = Path(__file__).parent
TARGET = GPUTarget("cuda", 90, 32)
BLACKWELL = GPUTarget("cuda", 100, 32)
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


BLOCKS = {"num_m_blocks": "i32", "num_k_blocks": "i32"}
FACTORS = {
    "sfa_map": "tensordesc<u8[1, 1, 1, 2, 256]>",
    "sfb_map": "tensordesc<u8[1, {N}, 1, 2, 256]>",
}


def maps(kind: str, *, columns: bool = False) -> dict[str, str]:
    """Types of the maps of A, B and D."""
    shape = "{{BLOCK_K}}, {{BLOCK_{0}}}" if columns else "{{BLOCK_{0}}}, {{BLOCK_K}}"
    return {
        "a_map": f"tensordesc<{kind}[{shape.format('M')}]>",
        "b_map": f"tensordesc<{kind}[{shape.format('N')}]>",
        "d_map": "tensordesc<bf16[{BLOCK_M}, {BLOCK_N}]>",
    }


def blocks(m: int, n: int, k: int) -> dict[str, int]:
    return {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}


# As KERNELS, of two or three stages, for sm_100a.
BLACKWELL_KERNELS = {
    "sm100_f8": (blackwell.dot_of_rows, maps("fp8e4nv") | BLOCKS, blocks(128, 128, 128)),
    "sm100_f8_mn_major": (
        blackwell.dot_of_columns,
        maps("fp8e4nv", columns=True) | BLOCKS,
        blocks(128, 128, 128),
    ),
    "sm100_bf16": (blackwell.dot_of_rows, maps("bf16") | BLOCKS, blocks(128, 64, 64)),
    "sm100_f16_m64": (blackwell.dot_of_rows, maps("fp16") | BLOCKS, blocks(64, 128, 64)),
    "sm100_bf16_mn_major": (
        blackwell.dot_of_columns,
        maps("bf16", columns=True) | BLOCKS,
        blocks(128, 128, 64),
    ),
    "sm100_mxf8": (
        blackwell.scaled_dot,
        maps("fp8e4nv") | {"sfa": "*u8", "sfb": "*u8"} | BLOCKS,
        blocks(128, 128, 128),
    ),
    "sm100_mxf8_cp": (
        blackwell.scaled_dot_in_blocks,
        maps("fp8e4nv") | FACTORS | BLOCKS,
        blocks(128, 256, 128),
    ),
}


def of_pair(kind: str, shape: str, bits: int, *, split: bool = True, rank: int = 2) -> str:
    """Type of a map of which each CTA of a pair has one half, or all."""
    basis = [0] * rank
    basis[rank - 4 if rank > 2 else 0] = int(split)
    layout = gl.NVMMASharedLayout(128 if rank == 2 else 0, bits, rank, cga_layout=[basis])
    return f"tensordesc<{kind}[{shape}],{layout!r}>"


def maps_of_pair(m: int, n: int, kind: str, bits: int) -> dict[str, str]:
    k = 1024 // bits
    return {
        "a_map": of_pair(kind, f"{m}, {k}", bits),
        "b_map": of_pair(kind, f"{n}, {k}", bits),
        "d_map": of_pair("bf16", f"{m}, {n}", 16),
    }


FACTORS_OF_PAIR = {
    "sfa_map": of_pair("u8", "1, 2, 1, 2, 256", 8, rank=5),
    "sfb_map": of_pair("u8", "1, 1, 1, 2, 256", 8, rank=5, split=False),
}
ROWS_OF_B = gl.NVMMASharedLayout(128, 16, 2)

# Name of the text -> kernel, types of its parameters, its constants, CTAs of a cluster.
GLUON_KERNELS = {
    "sm100_pair_f8": (
        pairs.pair_dot,
        maps_of_pair(256, 128, "fp8e4nv", 8) | BLOCKS,
        blocks(256, 128, 128),
        2,
    ),
    "sm100_pair_bf16_m128": (
        pairs.pair_dot,
        maps_of_pair(128, 64, "bf16", 16) | BLOCKS,
        blocks(128, 64, 64),
        2,
    ),
    "sm100_pair_mxf8": (
        pairs.scaled_pair_dot,
        maps_of_pair(256, 128, "fp8e4nv", 8) | FACTORS_OF_PAIR | BLOCKS,
        blocks(256, 128, 128),
        2,
    ),
    "sm100_a_in_tensor_memory": (
        pairs.dot_from_tensor_memory,
        {"x": "*bf16", "b_map": f"tensordesc<bf16[64, 64],{ROWS_OF_B!r}>", "d": "*fp32"},
        {"BLOCK_N": 64, "BLOCK_K": 64},
        1,
    ),
    "sm100_moves": (
        pairs.copies_through_tensor_memory,
        {"x": "*fp32", "y": "*fp32"},
        {"COLUMNS": 32},
        1,
    ),
}


def main() -> int:
    for name, (function, types, constants, num_warps, num_stages) in KERNELS.items():
        source = ASTSource(*signature(function, types, constants))
        write(name, source, constants, TARGET, num_warps=num_warps, num_stages=num_stages)
    for name, (function, types, constants) in BLACKWELL_KERNELS.items():
        source = ASTSource(*signature(function, types, constants))
        write(name, source, constants, BLACKWELL, num_warps=4, num_stages=2)
    for name, (function, types, constants, num_ctas) in GLUON_KERNELS.items():
        source = GluonASTSource(*signature(function, types, constants))
        write(name, source, constants, BLACKWELL, num_warps=4, num_stages=1, num_ctas=num_ctas)
    return 0


def signature(
    function: object, types: dict[str, str], constants: dict[str, int]
) -> tuple[object, dict[str, str], dict[str, int]]:
    """A kernel, the types of its parameters with the constants filled in, and the constants."""
    numbers = {**constants, "N": constants.get("BLOCK_N", 0) // 128}
    filled = {}
    for key, text in types.items():
        for name, number in numbers.items():
            text = text.replace(f"{{{name}}}", str(number))
        filled[key] = text
    return function, filled | dict.fromkeys(constants, "constexpr"), constants


def write(
    name: str, source: ASTSource, constants: dict[str, int], target: GPUTarget, **options: int
) -> None:
    """Compiles a kernel into NAME.ptx."""
    kernel = triton.compile(source, target=target, options=options)
    boxes = kernel.metadata.tensordesc_meta or []
    file = Path(source.fn.fn.__code__.co_filename).name
    header = (
        f"// Triton {triton.__version__}: {source.fn.__name__} of {file}, {constants},"
        f" {options['num_warps']} warps, {options['num_stages']} stages\n"
        f"// shared memory: {kernel.metadata.shared} bytes\n"
        f"// boxes: {[entry['block_size'] for entry in boxes]}\n"
    )
    (FOLDER / f"{name}.ptx").write_text(header + without_folders(kernel.asm["ptx"]))


def without_folders(text: str) -> str:
    """The text without the folders of this machine: in .file, and by bytes in DWARF sections."""
    text, _, _ = text.partition("\t.section\t.debug_")
    lines = re.sub(r'(\.file\s+\d+\s+)"[^"]*/([^"/]*)"', r'\1"\2"', text).splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
