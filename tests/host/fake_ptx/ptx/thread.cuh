// csrc/ptx for a host: the same names, but the thread is whoever the harness says it is, and what
// it would do is written to a log.
#pragma once

#include <vector>

#include "common/types.cuh"

struct ThreadIndex {
    int x;
};
inline ThreadIndex threadIdx;

struct Event {
    int64_t thread;
    int64_t kind;  // a character, see the functions that log
    int64_t values[5];
};
inline std::vector<Event> events;

inline void log_event(char kind, int64_t a = 0, int64_t b = 0, int64_t c = 0, int64_t d = 0,
                      int64_t e = 0) {
    events.push_back({threadIdx.x, kind, {a, b, c, d, e}});
}

inline void __syncwarp() { log_event('Y'); }

namespace deep_gemm::ptx {

inline uint32_t lane_idx() { return threadIdx.x % 32; }

inline uint32_t uniform(uint32_t value) { return value; }

}  // namespace deep_gemm::ptx
