// Rows copied, added or compared to the rows that indices name. No result depends on the order in which threads run, but
// for the last bits of sums over both many rows and many indices (`scatter_each`).
//
// Indices the host has not seen are checked here: those outside are left out.

#include "operate.cuh"

struct ScatterOperands {
    const float* x;       // [rows, cols]
    const int* source;    // [count]
    const int* target;
    float* out;           // [rows, cols]
    u32* pairs;           // [rows, rows]: how often a target meets a source; or [rows]: the last edge and 1, or 0
    u64 count;
    u32 rows;
    u32 cols;
};

enum { LAST, ADD, MOST };

// A warp for each row and 32 of its columns looks at all edges, 32 at a time: for few rows or few edges.
template <int F> __device__ __forceinline__ void scatter_rows(const ScatterOperands& o) {
    const u32 lane = threadIdx.x % 32, tiles = (o.cols + 31) / 32;
    const u64 number = (u64)blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    const u64 row = number / tiles;
    const u32 col = number % tiles * 32 + lane;
    wait_for_previous();
    if (row >= o.rows) return;
    float result = 0.0f;
    const u64 blocks = (o.count + 31) / 32;
    for (u64 n = 0; n < blocks; n++) {
        const u64 e = 32 * (F == LAST ? blocks - 1 - n : n) + lane;
        const bool mine = e < o.count && (u32)o.target[e] == row && (u32)o.source[e] < o.rows;
        u32 found = __ballot_sync(0xffffffff, mine);
        if (F == LAST && found) found = 0x80000000 >> __clz(found);
        for (; found; found &= found - 1) {
            const u32 from = o.source[e - lane + __ffs(found) - 1];
            const float v = col < o.cols ? o.x[(u64)from * o.cols + col] : 0.0f;
            result = F == ADD ? result + v : F == MOST ? fmaxf(result, v) : v;
            if (F == LAST) n = blocks;
        }
    }
    if (col < o.cols) o.out[row * o.cols + col] = result;
}
extern "C" __global__ void __launch_bounds__(THREADS) scatter_rows_last(const ScatterOperands o) { scatter_rows<LAST>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) scatter_rows_sum(const ScatterOperands o) { scatter_rows<ADD>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) scatter_rows_max(const ScatterOperands o) { scatter_rows<MOST>(o); }

// Many edges, few rows: how often each pair of rows occurs (`pairs` is 0 before), then every pair once.
extern "C" __global__ void __launch_bounds__(THREADS) scatter_count(const ScatterOperands o) {
    const u64 first = (u64)blockIdx.x * (4 * THREADS) + threadIdx.x;
    wait_for_previous();
    u32 source[4], target[4];
#pragma unroll
    for (int k = 0; k < 4; k++) {
        const u64 e = first + k * THREADS;
        source[k] = e < o.count ? o.source[e] : o.rows;
        target[k] = e < o.count ? o.target[e] : o.rows;
    }
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (source[k] < o.rows && target[k] < o.rows) atomicAdd(o.pairs + target[k] * o.rows + source[k], 1);
}
// A block for each target row and 32 columns; warps share the sources.
template <int F> __device__ __forceinline__ void scatter_pairs(const ScatterOperands& o) {
    __shared__ float part[THREADS / 32][32];
    const u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, tiles = (o.cols + 31) / 32;
    const u32 row = blockIdx.x / tiles, col = blockIdx.x % tiles * 32 + lane;
    wait_for_previous();
    float result = 0.0f;
    for (u32 s = 32 * warp; s < o.rows; s += THREADS) {
        const u32 mine = s + lane < o.rows ? o.pairs[row * o.rows + s + lane] : 0;
        for (u32 found = __ballot_sync(0xffffffff, mine > 0); found; found &= found - 1) {
            const int at = __ffs(found) - 1;
            const float times = (float)__shfl_sync(0xffffffff, mine, at);
            const float v = col < o.cols ? o.x[(u64)(s + at) * o.cols + col] : 0.0f;
            result = F == ADD ? fmaf(times, v, result) : fmaxf(result, v);
        }
    }
    part[warp][lane] = result;
    __syncthreads();
    if (warp > 0 || col >= o.cols) return;
#pragma unroll
    for (int w = 1; w < THREADS / 32; w++) result = F == ADD ? result + part[w][lane] : fmaxf(result, part[w][lane]);
    o.out[(u64)row * o.cols + col] = result;
}
extern "C" __global__ void __launch_bounds__(THREADS) scatter_pairs_sum(const ScatterOperands o) { scatter_pairs<ADD>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) scatter_pairs_max(const ScatterOperands o) { scatter_pairs<MOST>(o); }

// Many of both, over a result that is 0 before. Floats from 0 on are ordered like the integers of their bits.
template <int F> __device__ __forceinline__ void scatter_each(const ScatterOperands& o) {
    const u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    u64 e, col;
    wait_for_previous();
    divide(i, o.cols, e, col);
    if (e >= o.count) return;
    const u32 from = o.source[e], to = o.target[e];
    if (from >= o.rows || to >= o.rows) return;
    const float v = o.x[(u64)from * o.cols + col];
    float* out = o.out + (u64)to * o.cols + col;
    if (F == ADD) atomicAdd(out, v);
    else if (v > *out) atomicMax((int*)out, __float_as_int(v));
}
extern "C" __global__ void __launch_bounds__(THREADS) scatter_each_sum(const ScatterOperands o) { scatter_each<ADD>(o); }
extern "C" __global__ void __launch_bounds__(THREADS) scatter_each_max(const ScatterOperands o) { scatter_each<MOST>(o); }

// Each row's last edge, over zeros: from the end on, so that most of them find a later one there already.
extern "C" __global__ void __launch_bounds__(THREADS) scatter_last(const ScatterOperands o) {
    const u64 n = (u64)blockIdx.x * THREADS + threadIdx.x;
    wait_for_previous();
    if (n >= o.count) return;
    const u32 e = (u32)(o.count - 1 - n), to = o.target[e];
    if (to < o.rows && (u32)o.source[e] < o.rows && __ldcg(o.pairs + to) < e + 1) atomicMax(o.pairs + to, e + 1);
}
extern "C" __global__ void __launch_bounds__(THREADS) scatter_take(const ScatterOperands o) {
    const u64 i = (u64)blockIdx.x * THREADS + threadIdx.x;
    u64 row, col;
    wait_for_previous();
    divide(i, o.cols, row, col);
    if (row >= o.rows) return;
    const u32 last = o.pairs[row];
    o.out[i] = last ? o.x[(u64)o.source[last - 1] * o.cols + col] : 0.0f;
}
