// csrc/ptx/copy.cuh for a host, as far as the epilogue uses it.
#pragma once

#include "ptx/thread.cuh"

namespace deep_gemm {

struct TensorMap {};

namespace ptx {

inline void tma_store_3d(const TensorMap*, const void* source, int inner, int middle, int outer) {
    log_event('T', reinterpret_cast<int64_t>(source), inner, middle, outer);
}

inline void tma_reduce_add_3d(const TensorMap*, const void* source, int inner, int middle,
                              int outer) {
    log_event('R', reinterpret_cast<int64_t>(source), inner, middle, outer);
}

inline void tma_store_commit_group() { log_event('C'); }

inline void tma_store_wait_read() { log_event('D'); }

}  // namespace ptx
}  // namespace deep_gemm
