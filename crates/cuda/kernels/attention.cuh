// What all kernels of attention share: their operands, and how tiles of queries are dealt out to blocks.

#pragma once

#include "common.cuh"

struct AttentionOperands {
    const T* qkv;              // [rows, 3 heads head_size]
    T* out;                    // [rows, heads head_size]
    const u32* counts;         // rows, sequences, tiles
    const u32* offsets;        // [sequences + 1]
    const uint4* tiles;        // [tiles]: where a sequence begins, its length, and the first of some of its queries
    const u32* buckets;        // [2 reach + 1], or null without relative terms
    const T* relative_keys;    // [buckets, heads head_size] or null
    const T* relative_queries; // [buckets, heads head_size] or null
    const T* relative_bias;    // [buckets, heads] or null
    float scale;
    int heads;
    int head_size;
    int before;                // how far back a query sees
    int after;                 // how far forward
    int reach;
};

// The work of a block that takes a tile: queries from `first` on of a sequence whose rows begin at `start`.
struct Share {
    int head, start, length, first;
};

// Which share is this block's, if any. Blocks of one tile follow each other, so that those without work are the last. Where the kernel
// in front leaves no room for this one, these loads are waited for, so neither waits for the other: there is a place for every block's
// tile.
__device__ __forceinline__ bool share_of(const AttentionOperands& o, Share& share) {
    const u32 tile = blockIdx.x / o.heads, count = o.counts[2];
    const uint4 place = o.tiles[tile];
    share = {(int)(blockIdx.x - tile * o.heads), (int)place.x, (int)place.y, (int)place.z};
    return tile < count;
}
