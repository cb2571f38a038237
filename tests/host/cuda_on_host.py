"""What lets our headers for the device through a host compiler."""

from __future__ import annotations

from pathlib import Path

CSRC = Path(__file__).parents[2] / "csrc"

# The functions of the headers are parsed, and never called.
CUDA_ON_HOST = """
#define DG_DEVICE inline
#define __shared__
#define __align__(bytes)
struct { unsigned x; } threadIdx, blockIdx, gridDim;
void __syncthreads();
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
unsigned __byte_perm(unsigned, unsigned, unsigned);
void __syncwarp();
unsigned __shfl_sync(unsigned, unsigned, int);
unsigned __shfl_up_sync(unsigned, unsigned, unsigned);
unsigned __shfl_xor_sync(unsigned, unsigned, int);
unsigned __float_as_uint(float);
float __uint_as_float(unsigned);
float __fdiv_rn(float, float);
float __fmul_rn(float, float);
float __fmaf_rn(float, float, float);
float __frcp_rn(float);
extern "C" float expf(float);
unsigned __ballot_sync(unsigned, int);
unsigned __reduce_add_sync(unsigned, unsigned);
int __reduce_min_sync(unsigned, int);
int __reduce_max_sync(unsigned, int);
int __ffs(int);
unsigned __cvta_generic_to_shared(const void*);
unsigned long __cvta_generic_to_global(const void*);
"""
CUDA_ON_HOST_FLAGS = ("-Wno-unknown-pragmas", "-Wno-unused", "-Wno-sign-compare")
