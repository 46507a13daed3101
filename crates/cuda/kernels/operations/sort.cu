// Lines sorted: those of up to 1024 values by a warp in its registers (Batcher's bitonic network), longer ones in pieces of
// 1024 that are merged, twice as long each time.
//
// Values are compared as integers of the same order; what is not a number is the largest.

#include "operate.cuh"

struct SortOperands {
    const float* x;       // [outer, len, inner]
    float* out;
    const u32* from;      // merge: runs, [lines, len]
    u32* to;
    u64 lines;            // outer * inner
    u64 len;
    u64 inner;
    u64 run;              // merge: length of a run of `from`
    u32 pieces;           // of 1024 in a line
    u32 last;             // merge: the result is `out`
};

__device__ __forceinline__ u32 key(float v) {
    const u32 bits = __float_as_uint(v);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0xffffffff;
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}
__device__ __forceinline__ float value(u32 key) {
    return __uint_as_float(key == 0xffffffff ? 0x7fc00000 : key & 0x80000000 ? key & 0x7fffffff : ~key);
}
__device__ __forceinline__ void order(u32& a, u32& b) {
    const u32 low = min(a, b);
    b = max(a, b);
    a = low;
}

// 32 E keys: afterwards lane l has those of ranks l E to l E + E - 1. Every merge begins with the mirror of its second
// half, so all comparisons go the same way.
template <int E> __device__ __forceinline__ void warp_sort(u32 (&v)[E], int lane) {
#pragma unroll
    for (int k = 2; k <= E; k *= 2) {
#pragma unroll
        for (int e = 0; e < E; e++)
            if ((e ^ (k - 1)) > e) order(v[e], v[e ^ (k - 1)]);
#pragma unroll
        for (int j = k / 4; j > 0; j /= 2)
#pragma unroll
            for (int e = 0; e < E; e++)
                if ((e ^ j) > e) order(v[e], v[e ^ j]);
    }
#pragma unroll
    for (int lanes = 2; lanes <= 32; lanes *= 2) {
        bool upper = lane & (lanes / 2);
        u32 other[E];
#pragma unroll
        for (int e = 0; e < E; e++) other[e] = __shfl_xor_sync(0xffffffff, v[E - 1 - e], lanes - 1);
#pragma unroll
        for (int e = 0; e < E; e++) v[e] = upper ? max(v[e], other[e]) : min(v[e], other[e]);
#pragma unroll
        for (int j = lanes / 4; j > 0; j /= 2) {
            upper = lane & j;
#pragma unroll
            for (int e = 0; e < E; e++) {
                const u32 o = __shfl_xor_sync(0xffffffff, v[e], j);
                v[e] = upper ? max(v[e], o) : min(v[e], o);
            }
        }
#pragma unroll
        for (int j = E / 2; j > 0; j /= 2)
#pragma unroll
            for (int e = 0; e < E; e++)
                if ((e ^ j) > e) order(v[e], v[e ^ j]);
    }
}

// Contiguous lines, or pieces of them; four warps a block. Ranks go through shared memory so that stores are in order.
template <int E, bool PIECES> __device__ __forceinline__ void sort_lines(const SortOperands& o) {
    __shared__ u32 ranks[4][33 * E];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const u64 number = (u64)blockIdx.x * 4 + warp;
    wait_for_previous();
    u64 line = number, piece = 0;
    if (PIECES) divide(number, o.pieces, line, piece);
    if (line >= o.lines) return;
    u64 first = line * o.len, pitch = 1;
    if (PIECES) {
        u64 outer, column;
        divide(line, o.inner, outer, column);
        first = outer * o.len * o.inner + column;
        pitch = o.inner;
    }
    const u32 start = PIECES ? (u32)piece * 1024 : 0;
    const u32 count = (u32)min(o.len - start, (u64)(32 * E));
    u32 v[E];
#pragma unroll
    for (int e = 0; e < E; e++) {
        const u32 i = e * 32 + lane;
        v[e] = i < count ? key(o.x[first + (start + i) * pitch]) : 0xffffffff;
    }
    warp_sort<E>(v, lane);
#pragma unroll
    for (int e = 0; e < E; e++) ranks[warp][lane * E + e + (lane * E + e) / 32] = v[e];
    __syncwarp();
#pragma unroll
    for (int e = 0; e < E; e++) {
        const u32 i = e * 32 + lane;
        if (i >= count) continue;
        const u32 rank = ranks[warp][i + i / 32];
        if (PIECES) o.to[line * o.len + start + i] = rank;
        else o.out[first + i] = value(rank);
    }
}

// Columns: a tile of `COLUMNS` lines that lie side by side goes through shared memory.
template <int E, int COLUMNS> __device__ __forceinline__ void sort_columns(const SortOperands& o) {
    __shared__ u32 tile[32 * E * (COLUMNS + 1) + E];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, len = (int)o.len;
    const u64 tiles = (o.inner + COLUMNS - 1) / COLUMNS;
    u64 outer, number;
    divide(blockIdx.x, tiles, outer, number);
    const u64 col = number * COLUMNS;
    const u64 first = outer * o.len * o.inner + col;
    wait_for_previous();
#pragma unroll 8
    for (int i = threadIdx.x; i < len * COLUMNS; i += THREADS) {
        const int row = i / COLUMNS, c = i % COLUMNS;
        if (col + c < o.inner) tile[row * (COLUMNS + 1) + row / 32 + c] = key(o.x[first + row * o.inner + c]);
    }
    __syncthreads();
    for (int c = warp; c < COLUMNS; c += THREADS / 32) {
        if (col + c >= o.inner) break;
        u32 v[E];
#pragma unroll
        for (int e = 0; e < E; e++) {
            const int row = e * 32 + lane;
            v[e] = row < len ? tile[row * (COLUMNS + 1) + row / 32 + c] : 0xffffffff;
        }
        warp_sort<E>(v, lane);
#pragma unroll
        for (int e = 0; e < E; e++) {
            const int row = lane * E + e;
            if (row < len) tile[row * (COLUMNS + 1) + row / 32 + c] = v[e];
        }
    }
    __syncthreads();
#pragma unroll 8
    for (int i = threadIdx.x; i < len * COLUMNS; i += THREADS) {
        const int row = i / COLUMNS, c = i % COLUMNS;
        if (col + c < o.inner) o.out[first + row * o.inner + c] = value(tile[row * (COLUMNS + 1) + row / 32 + c]);
    }
}

#if PART == 0
// Pairs of runs become one: each thread finds where its eight values begin in both, and merges from there.
extern "C" __global__ void __launch_bounds__(THREADS) sort_merge(const SortOperands o) {
    const u64 threads = (o.len + 7) / 8;
    u64 line, number;
    wait_for_previous();
    divide((u64)blockIdx.x * THREADS + threadIdx.x, threads, line, number);
    if (line >= o.lines) return;
    const u64 start = number * 8, pair = start / (2 * o.run) * (2 * o.run);
    const u32* a = o.from + line * o.len + pair;
    const u64 na = min(o.run, o.len - pair), nb = min(o.run, o.len - pair - na), diagonal = start - pair;
    const u32* b = a + na;
    u64 low = diagonal > nb ? diagonal - nb : 0, high = min(diagonal, na);
    while (low < high) {
        const u64 middle = (low + high) / 2;
        if (a[middle] <= b[diagonal - 1 - middle]) low = middle + 1;
        else high = middle;
    }
    u64 i = low, j = diagonal - low, outer, column;
    divide(line, o.inner, outer, column);
    for (int k = 0; k < 8 && start + k < o.len; k++) {
        const bool left = j >= nb || (i < na && a[i] <= b[j]);
        const u32 next = left ? a[i] : b[j];
        left ? i++ : j++;
        if (o.last) o.out[(outer * o.len + start + k) * o.inner + column] = value(next);
        else o.to[line * o.len + start + k] = next;
    }
}
#endif

#define LINES(name, E, PIECES) \
    extern "C" __global__ void __launch_bounds__(128) name(const SortOperands o) { sort_lines<E, PIECES>(o); }
#define COLUMNS(name, E, WIDTH) \
    extern "C" __global__ void __launch_bounds__(THREADS) name(const SortOperands o) { sort_columns<E, WIDTH>(o); }
#if PART == 0
LINES(sort_lines_1, 1, false)
LINES(sort_lines_2, 2, false)
LINES(sort_lines_4, 4, false)
LINES(sort_lines_8, 8, false)
LINES(sort_lines_16, 16, false)
LINES(sort_lines_32, 32, false)
LINES(sort_pieces, 32, true)
#else
COLUMNS(sort_columns_1, 1, 32)
COLUMNS(sort_columns_2, 2, 32)
COLUMNS(sort_columns_4, 4, 32)
COLUMNS(sort_columns_8, 8, 32)
COLUMNS(sort_columns_16, 16, 16)
COLUMNS(sort_columns_32, 32, 8)
#endif
