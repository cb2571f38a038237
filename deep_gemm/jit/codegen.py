"""From a configuration to the text of one CUDA translation unit."""

from __future__ import annotations

from deep_gemm.config.gemm_config import BLOCK_SLOT_BYTES, GemmConfig
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import GemmArguments, KGroupMapsArguments


def wgmma_specialisation(n: int) -> str:
    """The C++ wrapper of `wgmma.mma_async` m64n{n}k32 for e4m3, with n/2 accumulator registers."""
    registers = n // 2
    operands = ", ".join(f"%{i}" for i in range(registers))
    outputs = ", ".join(f'"+f"(d[{i}])' for i in range(registers))
    instruction = f"wgmma.mma_async.sync.aligned.m64n{n}k32.f32.e4m3.e4m3"
    return f"""\
template <>
struct deep_gemm::ptx::WgmmaFp8<{n}> {{
    static DG_DEVICE void mma_async(float (&d)[{registers}], uint64_t a, uint64_t b,
                                    bool accumulate) {{
        asm volatile(
            "{{\\n"
            ".reg .pred p;\\n"
            "setp.ne.b32 p, %{registers + 2}, 0;\\n"
            "{instruction}\\n"
            "{{{operands}}}, %{registers}, %{registers + 1}, p, 1, 1;\\n"
            "}}"
            : {outputs}
            : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));
    }}
}};
"""


def generate(config: GemmConfig, arch: str) -> KernelSource:
    """The FP8 GEMM kernel of a configuration.

    The text asserts that C++ and Python agree on the shared memory and on the argument struct.
    """
    text = f"""\
#include "kernels/sm90_fp8_gemm.cuh"

{wgmma_specialisation(config.block_n)}
constexpr deep_gemm::GemmConfig kConfig{config.initialiser()};

static_assert(sizeof(deep_gemm::SharedStorage<kConfig>) == {config.smem_bytes});
static_assert(sizeof(deep_gemm::GemmArguments) == {GemmArguments.cxx_size()});
static_assert(sizeof(deep_gemm::BlockSlot) == {BLOCK_SLOT_BYTES});
static_assert(kConfig.num_accumulators() == {config.num_accumulators});
static_assert(kConfig.num_threads() == {config.num_threads});
static_assert(kConfig.d_swizzle_bytes() == {config.d_swizzle_bytes});

extern "C" __global__ void __launch_bounds__({config.num_threads}, 1)
    {config.entry}(const __grid_constant__ deep_gemm::GemmArguments args) {{
    deep_gemm::sm90_fp8_gemm<kConfig>(args);
}}
"""
    return KernelSource(config.name, text, config.entry, arch, config=repr(config))


def generate_k_group_maps(arch: str) -> KernelSource:
    """The kernel that makes the tensor maps of a k-grouped GEMM's groups."""
    name = "sm90_k_group_maps"
    text = f"""\
#include "kernels/k_group_maps.cuh"

static_assert(sizeof(deep_gemm::KGroupMapsArguments) == {KGroupMapsArguments.cxx_size()});

extern "C" __global__ void __launch_bounds__(32)
    {name}(const __grid_constant__ deep_gemm::KGroupMapsArguments args) {{
    deep_gemm::k_group_maps(args);
}}
"""
    return KernelSource(name=name, text=text, entry=name, arch=arch)
