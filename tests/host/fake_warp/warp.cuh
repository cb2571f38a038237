// A warp on a host: 32 lanes, one of which runs until it meets the others in a shuffle, a vote or a
// barrier; then the next one does. Lanes that do not meet in the same place are found.
#pragma once

#include <ucontext.h>

#include <functional>

constexpr int kLanes = 32;
constexpr unsigned kAllLanes = 0xffffffff;

struct Warp {
    struct Lane {
        ucontext_t context;
        unsigned num_meetings;
        alignas(16) char stack[64 * 1024];
    };
    // What a lane brings to a meeting.
    struct Visit {
        char kind;
        unsigned value;
    };

    std::function<void()> body;
    Lane lanes[kLanes];
    Visit visits[2][kLanes];  // of the last two meetings: a lane may be one ahead of another
    ucontext_t caller;
    bool diverged;
};
inline Warp warp;

inline void go_to(int lane) { threadIdx.x = lane; }

inline void end_as_diverged() {
    warp.diverged = true;
    setcontext(&warp.caller);
}

// Waits until all lanes have come here; what they have brought, by lane.
inline const Warp::Visit* meet(char kind, unsigned value = 0, unsigned mask = kAllLanes) {
    const int lane = threadIdx.x, next = (lane + 1) % kLanes;
    Warp::Visit* visits = warp.visits[warp.lanes[lane].num_meetings++ % 2];
    visits[lane] = {kind, value};
    go_to(next);
    swapcontext(&warp.lanes[lane].context, &warp.lanes[next].context);
    if (mask != kAllLanes) end_as_diverged();
    for (int other = 0; other < kLanes; ++other) {
        if (visits[other].kind != kind) end_as_diverged();
    }
    return visits;
}

inline void run_lane() {
    warp.body();
    meet('E');
    const int lane = threadIdx.x;
    if (lane == kLanes - 1) setcontext(&warp.caller);
    go_to(lane + 1);
    setcontext(&warp.lanes[lane + 1].context);
}

// Runs `body` in every lane; whether they always met in the same places.
inline bool run_warp(std::function<void()> body) {
    warp.body = body;
    warp.diverged = false;
    for (Warp::Lane& lane : warp.lanes) {
        lane.num_meetings = 0;
        getcontext(&lane.context);
        lane.context.uc_stack.ss_sp = lane.stack;
        lane.context.uc_stack.ss_size = sizeof(lane.stack);
        makecontext(&lane.context, run_lane, 0);
    }
    go_to(0);
    swapcontext(&warp.caller, &warp.lanes[0].context);
    return !warp.diverged;
}

unsigned __shfl_sync(unsigned mask, unsigned value, int source) {
    return meet('S', value, mask)[source % kLanes].value;
}

unsigned __shfl_up_sync(unsigned mask, unsigned value, unsigned distance) {
    const unsigned lane = threadIdx.x;
    const Warp::Visit* visits = meet('U', value, mask);
    return visits[lane < distance ? lane : lane - distance].value;
}

unsigned __ballot_sync(unsigned mask, int vote) {
    const Warp::Visit* visits = meet('B', vote != 0, mask);
    unsigned votes = 0;
    for (int lane = 0; lane < kLanes; ++lane) votes |= visits[lane].value << lane;
    return votes;
}

unsigned __reduce_add_sync(unsigned mask, unsigned value) {
    const Warp::Visit* visits = meet('R', value, mask);
    unsigned sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += visits[lane].value;
    return sum;
}

void __syncwarp() { meet('W'); }
