// Integer names and function qualifiers, for NVRTC (which has no C library), NVCC and a host
// compiler.
#pragma once

#ifdef __CUDACC_RTC__
using uint8_t = unsigned char;
using uint16_t = unsigned short;
using uint32_t = unsigned int;
using int32_t = int;
using uint64_t = unsigned long long;
using int64_t = long long;
#else
#include <cstdint>
#endif

#ifdef __CUDACC__
#define DG_DEVICE __device__ __forceinline__
#define DG_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define DG_HOST_DEVICE inline
#endif
