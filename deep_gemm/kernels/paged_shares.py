"""The small kernel before paged MQA logits: where each CTA's share of the key tiles begins."""

from __future__ import annotations

from ctypes import c_uint32, c_void_p, sizeof

import torch

from deep_gemm.checks import extent
from deep_gemm.jit.build import build
from deep_gemm.jit.source import KernelSource
from deep_gemm.kernels.arguments import KernelArguments
from deep_gemm.runtime.device import any_arch_of
from deep_gemm.runtime.launch import KernelLaunch, Plan
from deep_gemm.runtime.plan import make_plan
from deep_gemm.settings import Settings

NUM_THREADS = 256


class PagedSharesArguments(KernelArguments):
    """Parameters, in the order of the C++ struct in kernels/paged_shares.cuh."""

    _fields_ = (
        ("context_lens", c_void_p),
        ("shares", c_void_p),
        ("num_sequences", c_uint32),
        ("lens_per_sequence", c_uint32),
    )


def generate_paged_shares(arch: str) -> KernelSource:
    """The kernel, whose name has nothing of that which it serves: profiles are searched by it."""
    name = "paged_key_shares"
    text = f"""\
#include "kernels/paged_shares.cuh"

static_assert(sizeof(deep_gemm::PagedSharesArguments) == {sizeof(PagedSharesArguments)});

extern "C" __global__ void __launch_bounds__({NUM_THREADS})
    {name}(const __grid_constant__ deep_gemm::PagedSharesArguments args) {{
    deep_gemm::paged_shares<{NUM_THREADS}>(args);
}}
"""
    return KernelSource(name, text, name, arch)


def plan_paged_shares(context_lens: torch.Tensor, shares: torch.Tensor, settings: Settings) -> Plan:
    """The launch for tensors of these shapes.

    Args:
        context_lens: [sequences] or [sequences, next_n] int32, contiguous, not empty.
        shares: [CTAs + 1, 2] int32, contiguous, which is written.
        settings: of the call.
    """
    arguments = PagedSharesArguments.allocate()
    arguments.num_sequences = context_lens.shape[0]
    arguments.lens_per_sequence = context_lens.numel() // context_lens.shape[0]
    launch = KernelLaunch(
        kernel=build(generate_paged_shares(any_arch_of(context_lens.device))),
        arguments=arguments,
        maps=(),
        pointers=(("context_lens", extent(context_lens)), ("shares", extent(shares))),
        grid=shares.shape[0],
        num_threads=NUM_THREADS,
        smem_bytes=0,
        cluster_size=1,
        pdl=settings.pdl,
    )
    return make_plan(launch, [context_lens.data_ptr(), shares.data_ptr()], context_lens.device)
