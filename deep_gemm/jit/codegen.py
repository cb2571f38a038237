"""From a configuration to the text of one CUDA translation unit."""

from __future__ import annotations

from deep_gemm.config.gemm_config import BLOCK_K, BLOCK_SLOT_BYTES, MMA_K, GemmConfig
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import GemmArguments, KGroupMapsArguments


def wgmma_specialisation(n: int, k: int) -> str:
    """The C++ wrapper of the `wgmma.mma_async` m64n{n}k32 for e4m3 that multiply k of K, with n/2
    accumulator registers.

    All of them are one statement: what a compiler takes grows with the operands of statements.
    """
    registers, offsets = n // 2, range(0, k, MMA_K)
    sums = ", ".join(f"%{i}" for i in range(registers))
    changed = ", ".join(f'"+f"(d[{i}])' for i in range(registers))
    multiply = f"wgmma.mma_async.sync.aligned.m64n{n}k{MMA_K}.f32.e4m3.e4m3 {{{sums}}}"
    instructions = "".join(
        f'            "{multiply}, %{registers + 2 * i}, %{registers + 2 * i + 1}, '
        f'{"adds" if i else "sets"}, 1, 1;\\n"\n'
        for i in range(len(offsets))
    )
    descriptors = ", ".join(f'"l"(a.at(a_bytes + {i})), "l"(b.at(b_bytes + {i}))' for i in offsets)
    return f"""\
template <>
struct deep_gemm::ptx::WgmmaFp8<{n}> {{
    template <typename A, typename B>
    static DG_DEVICE void mma_async(float (&d)[{registers}], A a, int a_bytes, B b, int b_bytes) {{
        asm volatile(
            "{{\\n"
            ".reg .pred sets, adds;\\n"
            "setp.ne.b32 sets, 0, 0;\\n"
            "setp.eq.b32 adds, 0, 0;\\n"
{instructions}            "}}"
            : {changed}
            : {descriptors});
    }}

    template <int kPending>
    static DG_DEVICE void wait_group(float (&d)[{registers}]) {{
        asm volatile("wgmma.wait_group.sync.aligned %{registers};"
                     : {changed}
                     : "n"(kPending)
                     : "memory");
    }}
}};
"""


def generate(config: GemmConfig, arch: str) -> KernelSource:
    """The FP8 GEMM kernel of a configuration.

    The text asserts that C++ and Python agree on the shared memory and on the argument struct.
    """
    text = f"""\
#include "kernels/sm90_fp8_gemm.cuh"

{wgmma_specialisation(config.block_n, BLOCK_K)}
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
