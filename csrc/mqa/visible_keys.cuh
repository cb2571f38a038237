// Which keys a query token sees, and which tiles of keys a block of them needs.
#pragma once

#include "common/math.cuh"
#include "common/types.cuh"
#include "mqa/arguments.cuh"
#include "mqa/config.cuh"

namespace deep_gemm {

// Keys first .. end - 1, of which `shift` keys lie to the left of column 0.
struct VisibleKeys {
    int64_t first;
    int64_t end;
    int64_t shift;

    DG_DEVICE bool is_empty() const { return end <= first; }
};

// The keys of token `token`. None lies beyond the keys that there are or the width of the logits,
// whatever the caller's numbers say.
template <MqaConfig kConfig>
DG_DEVICE VisibleKeys visible_keys(const MqaArguments& args, uint32_t token) {
    VisibleKeys keys{0, 0, 0};
    if constexpr (kConfig.is_paged()) {
        const uint32_t sequence = token / args.next_n;
        const uint32_t i = token % args.next_n;
        if (args.lens_per_sequence == 1) {
            keys.end = static_cast<int64_t>(args.context_lens[sequence]) - args.next_n + i + 1;
        } else {
            keys.end = args.context_lens[token];
        }
    } else {
        const int64_t start = args.key_starts[token];
        keys.first = max<int64_t>(start, 0);
        keys.end = args.key_ends[token];
        if (args.is_compressed) keys.shift = start;
    }
    keys.end = min<int64_t>(keys.end, min<int64_t>(args.num_keys, keys.shift + args.width));
    if (keys.is_empty()) keys.end = keys.first;
    return keys;
}

// The tiles of a block of tokens: `num_tiles` of kTileKeys keys from `first_key` on, the last of
// which need not reach beyond `end_key` - 1.
struct TileRange {
    uint32_t first_key;
    uint32_t num_tiles;
    uint32_t end_key;
};

// From the first and the last key that any of the block's tokens sees.
DG_DEVICE TileRange tile_range(int64_t first, int64_t end) {
    if (end <= first) return {0, 0, 0};
    const uint32_t first_key =
        static_cast<uint32_t>(first) / MqaConfig::kKeyAlignment * MqaConfig::kKeyAlignment;
    const uint32_t num_keys = static_cast<uint32_t>(end) - first_key;
    return {first_key, ceil_div<uint32_t>(num_keys, MqaConfig::kTileKeys),
            static_cast<uint32_t>(end)};
}

}  // namespace deep_gemm
